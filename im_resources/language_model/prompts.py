"""How an example becomes tokens: prompt template, response, and where a long one is cut.

All templates (``models.prompt``) end where the response starts, and the loss is taken over response
tokens only: of a conversation, over those of all its replies, or of the last (``loss_turns``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import pandas as pd

from im_resources.language_model.conversations import cues_of, fitting_context
from im_resources.language_model.template_registry import template_of, write_prompt
from im_resources.study import ModelSettings
from im_resources.turns import Turn, turns_in

# What is kept of a prompt's end when its middle is cut: enough for every template's response cue.
PROMPT_TAIL = 12


@dataclass(frozen=True)
class Lost:
    """What of an instruction did not fit, and was cut.

    Attributes:
        prompt: tokens of the prompt, with those of turns that were left out.
        turns: turns of a conversation that were left out, the oldest.
        replies: of these, the replies that the loss would be over: cut to nothing.
        reply_tokens: their tokens.
        outputs: tokens at the end of each output.
    """

    prompt: int = 0
    turns: int = 0
    replies: int = 0
    reply_tokens: int = 0
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """One instruction as token ids: the prompt, and one or more responses to it.

    Of a conversation whose every reply is learned, the only output begins with the first reply and
    holds the user's turns between them too; ``learned`` says which of its tokens are replies'.
    ``lost`` says what was cut; two that are the same tokens are equal.
    """

    prompt: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]
    learned: tuple[bool, ...] | None = None
    lost: Lost = field(default=Lost(), compare=False)

    @property
    def length(self) -> int:
        """Tokens of the prompt and all its responses."""
        return len(self.prompt) + sum(map(len, self.outputs))


def replies_of(encoded: Encoded) -> Iterator[tuple[int, ...]]:
    """The outputs; of a conversation whose every reply is learned, its replies."""
    if encoded.learned is None:
        yield from encoded.outputs
        return
    [said] = encoded.outputs
    for learned, part in groupby(zip(said, encoded.learned, strict=True), key=itemgetter(1)):
        if learned:
            yield tuple(token for token, _ in part)


def encode(
    tokenizer: Any,
    template: str,
    instruction: str,
    context: str,
    outputs: Sequence[str],
    max_length: int,
    max_output_tokens: int | None = None,
    turns: Sequence[Turn] | None = None,
) -> Encoded:
    """Tokenize one instruction, or the ``turns`` of a conversation, with its responses.

    Each prompt + response is at most ``max_length`` tokens. A prompt gives way first, down to half
    of that: of a conversation its oldest exchanges, then of the prompt that is left the middle (so
    that the question's start and the response cue stay). Then the response loses its end. Only an
    uncut response closes with the end-of-sequence token.

    Raises TemplateError when there is no such template, or it cannot write these turns.
    """
    found = template_of(template)
    if turns is not None:
        talk, _ = _encode_turns(tokenizer, template, turns, outputs, max_length, max_output_tokens)
        return _of_last_reply(talk)
    text, lead = write_prompt(found, instruction, context, tokenizer)
    prompt = tokenizer(text, add_special_tokens=found.special_tokens)["input_ids"]
    bodies = _bodies(tokenizer, [lead] * len(outputs), outputs)
    return _fitted(prompt, bodies, max_length, max_output_tokens)


def _fitted(
    prompt: list[int], bodies: list[list[int]], max_length: int, most: int | None = None
) -> Encoded:
    """Prompt and responses, each response cut to ``most`` tokens, within ``max_length``."""
    kept = _kept(len(prompt), _room(bodies, max_length, most))
    fitting = _fitting(bodies, max_length - len(kept), most)
    lost = Lost(prompt=len(prompt) - len(kept), outputs=_ends(bodies, fitting))
    return Encoded(tuple(prompt[i] for i in kept), fitting, lost=lost)


def _encode_turns(
    tokenizer: Any,
    template: str,
    turns: Sequence[Turn],
    outputs: Sequence[str],
    max_length: int,
    max_output_tokens: int | None = None,
) -> tuple[Encoded, list[bool]]:
    """The conversation, and which tokens of its prompt are of earlier replies."""
    found = template_of(template)
    # What stands before the last reply does not depend on how much of the conversation is kept.
    lead = cues_of(found, turns, tokenizer)[-1].lead
    bodies = _bodies(tokenizer, [lead] * len(outputs), outputs)
    room = _room(bodies, max_length, max_output_tokens)
    whole, context, left_out = fitting_context(found, turns, tokenizer, room)
    kept = _kept(len(context.ids), room)
    fitting = _fitting(bodies, max_length - len(kept), max_output_tokens)
    lost = Lost(
        prompt=len(whole.ids) - len(kept),
        turns=len(left_out),
        replies=sum(turn.role == "assistant" for turn in left_out),
        reply_tokens=sum(whole.learned) - sum(context.learned),
        outputs=_ends(bodies, fitting),
    )
    encoded = Encoded(tuple(context.ids[i] for i in kept), fitting, lost=lost)
    return encoded, [context.learned[i] for i in kept]


def _of_last_reply(encoded: Encoded) -> Encoded:
    """The conversation where the loss is over its last reply: no other is lost to it."""
    return replace(encoded, lost=replace(encoded.lost, replies=0, reply_tokens=0))


def _bodies(tokenizer: Any, leads: Sequence[str], outputs: Sequence[str]) -> list[list[int]]:
    """The responses as token ids, each behind its lead and closed."""
    texts = [lead + output for lead, output in zip(leads, outputs, strict=True)]
    if not texts:
        return []
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [[*body, tokenizer.eos_token_id] for body in ids]


def _fitting(bodies: list[list[int]], room: int, most: int | None) -> tuple[tuple[int, ...], ...]:
    """What of the responses fits into the room beside the prompt, and is at most so long."""
    return tuple(tuple(body[: room if most is None else min(room, most)]) for body in bodies)


def _ends(bodies: list[list[int]], fitting: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """How many tokens each response lost at its end."""
    return tuple(len(body) - len(kept) for body, kept in zip(bodies, fitting, strict=True))


def _room(bodies: list[list[int]], max_length: int, most: int | None) -> int:
    """Tokens of the longest prompt that is kept whole."""
    longest = max(map(len, bodies), default=0)
    longest = longest if most is None else min(longest, most)
    return max(max_length // 2, max_length - longest)


def _kept(length: int, room: int) -> Sequence[int]:
    """Which tokens of a prompt stay: all, or those around its middle."""
    if length <= room:
        return range(length)
    tail = min(PROMPT_TAIL, room * 3 // 4)
    return [*range(room - tail), *range(length - tail, length)]


def encode_examples(tokenizer: Any, models: ModelSettings, examples: pd.DataFrame) -> list[Encoded]:
    """Tokenize examples (columns instruction, input, output, and turns where some have them) by the
    study's template and length, with the responses that the loss is over."""
    columns = (examples[name].tolist() for name in ("instruction", "input", "output"))
    rows = list(zip(*columns, turns_in(examples), strict=True))
    plain = iter(_encode_plain(tokenizer, models, [row[:3] for row in rows if row[3] is None]))
    return [
        next(plain) if turns is None else encode_conversation(tokenizer, models, turns, output)
        for _, _, output, turns in rows
    ]


def _encode_plain(
    tokenizer: Any, models: ModelSettings, rows: Sequence[tuple[str, str, str]]
) -> list[Encoded]:
    """Rows (instruction, input, output) that are no conversations; half again as fast in one call
    of the tokenizer as one by one."""
    if not rows:
        return []
    found = template_of(models.prompt)
    written = [write_prompt(found, asked, context, tokenizer) for asked, context, _ in rows]
    texts, leads = zip(*written, strict=True)
    prompts = tokenizer(list(texts), add_special_tokens=found.special_tokens)["input_ids"]
    bodies = _bodies(tokenizer, leads, [output for *_, output in rows])
    return [
        _fitted(prompt, [body], models.max_length)
        for prompt, body in zip(prompts, bodies, strict=True)
    ]


def encode_conversation(
    tokenizer: Any, models: ModelSettings, turns: Sequence[Turn], output: str
) -> Encoded:
    """Tokenize a conversation with the replies that the loss is over: all, or the last."""
    encoded, earlier = _encode_turns(tokenizer, models.prompt, turns, [output], models.max_length)
    if models.loss_turns == "last":
        return _of_last_reply(encoded)
    if True not in earlier:
        return encoded
    first, [last] = earlier.index(True), encoded.outputs
    return Encoded(
        encoded.prompt[:first],
        ((*encoded.prompt[first:], *last),),
        (*earlier[first:], *[True] * len(last)),
        encoded.lost,
    )
