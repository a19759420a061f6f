"""How a conversation becomes tokens: a cue and a reply, again and again.

A template that knows only one exchange writes each as it writes an instruction: the user's turn is
the instruction, what tools said is its input, a system's text stands before it. Where a tool speaks
and no user, its text takes the instruction's place. Every reply ends with the end-of-sequence
token, so that an exchange reads as it does alone.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from im_resources.language_model.template_registry import Cue, PromptTemplate, write_prompt
from im_resources.turns import Turn


@dataclass(frozen=True)
class Context:
    """Token ids of a conversation up to where its last reply starts.

    Attributes:
        ids: all of them, special tokens too.
        learned: whether a token is of an earlier reply, or ends one; as long as ``ids``.
        lead: what is tokenized before the last reply.
    """

    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    lead: str


def cues_by_exchange(
    write: Callable[[str, str], tuple[str, str]], turns: Sequence[Turn]
) -> list[Cue]:
    """A Cue for each reply among the turns, and for the one that follows, from one exchange's."""
    cues: list[Cue] = []
    exchange: list[Turn] = []
    for turn in [*turns, None]:
        if turn is not None and turn.role != "assistant":
            exchange.append(turn)
            continue
        system, user, tool = (
            "\n\n".join(t.content for t in exchange if t.role == role)
            for role in ("system", "user", "tool")
        )
        prompt, lead = write(user, tool) if user else write(tool, "")
        cues.append(Cue(f"{system}\n\n{prompt}" if system else prompt, lead))
        exchange = []
    return cues


def cues_of(template: PromptTemplate, turns: Sequence[Turn], tokenizer: Any) -> Sequence[Cue]:
    """A Cue for each reply among the turns, and for the one that follows."""
    if template.turns is not None:
        return template.turns(turns, tokenizer)

    def write(instruction: str, context: str) -> tuple[str, str]:
        return write_prompt(template, instruction, context, tokenizer)

    return cues_by_exchange(write, turns)


def context_of(template: PromptTemplate, turns: Sequence[Turn], tokenizer: Any) -> Context:
    """The tokens of all turns, and the cue of the reply that follows."""
    cues = cues_of(template, turns, tokenizer)
    replies = [turn.content for turn in turns if turn.role == "assistant"]
    ids: list[int] = []
    learned: list[bool] = []
    for number, cue in enumerate(cues):
        begins = template.special_tokens and not number
        prompt = tokenizer(cue.prompt, add_special_tokens=begins)["input_ids"]
        reply: list[int] = []
        if number < len(replies):
            reply = tokenizer(cue.lead + replies[number], add_special_tokens=False)["input_ids"]
            reply = reply + end_of(cue, tokenizer)
        ids += [*prompt, *reply]
        learned += [False] * len(prompt) + [True] * len(reply)
    return Context(tuple(ids), tuple(learned), cues[-1].lead)


def end_of(cue: Cue, tokenizer: Any) -> list[int]:
    """What closes a reply."""
    if cue.end is None:
        return [tokenizer.eos_token_id]
    return list(tokenizer(cue.end, add_special_tokens=False)["input_ids"])


def fitting_context(
    template: PromptTemplate, turns: Sequence[Turn], tokenizer: Any, room: int
) -> tuple[Context, Context, Sequence[Turn]]:
    """The context without as many of the oldest exchanges as it takes to be at most ``room`` long.

    A system's turn at the beginning stays, and so does the last exchange, which may be too long.

    Returns:
        The whole context, the one that fits, and the turns that were left out.
    """
    known: dict[int, Context] = {}

    def without(count: int) -> Context:
        if count not in known:
            known[count] = context_of(template, without_oldest(turns, count), tokenizer)
        return known[count]

    whole = without(0)
    if len(whole.ids) <= room:
        return whole, whole, ()
    replies = sum(turn.role == "assistant" for turn in turns)
    fits = bisect_left(range(replies), True, key=lambda n: len(without(n).ids) <= room)
    return whole, without(fits), oldest(turns, fits)


def oldest(turns: Sequence[Turn], exchanges: int) -> list[Turn]:
    """The turns up to the n-th reply, but a system's at the beginning."""
    if not exchanges:
        return []
    replies = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    return list(turns[int(turns[0].role == "system") : replies[exchanges - 1] + 1])


def without_oldest(turns: Sequence[Turn], exchanges: int) -> list[Turn]:
    """The turns without those up to the n-th reply, except a system's at the beginning."""
    system = [turn for turn in turns[:1] if turn.role == "system"]
    return [*system, *turns[len(system) + len(oldest(turns, exchanges)) :]]
