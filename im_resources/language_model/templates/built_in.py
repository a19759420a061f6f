"""plain, alpaca, chat. The paper does not print its template, so it is a setting."""

from collections.abc import Sequence
from typing import Any

from im_resources.language_model.conversations import cues_by_exchange
from im_resources.language_model.template_registry import Cue, TemplateError, prompt_template
from im_resources.turns import Turn

ALPACA = "Below is an instruction that describes a task"
ALPACA_INPUT = ", paired with an input that provides further context"
ALPACA_TASK = ". Write a response that appropriately completes the request.\n\n"


@prompt_template("plain", version=1)
def plain(instruction: str, context: str) -> tuple[str, str]:
    """A question and its answer."""
    return f"Question: {instruction}\n{context + chr(10) if context else ''}Answer:", " "


def alpaca_turns(turns: Sequence[Turn], tokenizer: Any) -> list[Cue]:
    """Alpaca's headings for each exchange; what they are about is said once, or by the system."""
    first, *further = cues_by_exchange(lambda *texts: (_headings(*texts), ""), turns)
    head = "" if turns[0].role == "system" else f"{ALPACA}{ALPACA_TASK}"
    return [Cue(head + first.prompt, first.lead), *further]


@prompt_template("alpaca", version=1, turns=alpaca_turns)
def alpaca(instruction: str, context: str) -> tuple[str, str]:
    """Stanford Alpaca's, https://github.com/tatsu-lab/stanford_alpaca#data-release"""
    head = f"{ALPACA}{ALPACA_INPUT if context else ''}{ALPACA_TASK}"
    return head + _headings(instruction, context), ""


def _headings(instruction: str, context: str) -> str:
    given = f"### Input:\n{context}\n\n" if context else ""
    return f"### Instruction:\n{instruction}\n\n{given}### Response:\n"


def chat_turns(turns: Sequence[Turn], tokenizer: Any) -> list[Cue]:
    """All turns by the tokenizer's chat template, cut where the replies are.

    A reply is closed by the special token that the template writes behind it.

    Raises TemplateError when the template refuses a role or an order, or rewrites earlier replies
    (as some do that leave out what a model thought).
    """
    from jinja2 import TemplateError as Refused

    messages = [turn._asdict() for turn in turns]
    replies = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    cues: list[Cue] = []
    said = ""  # the text up to the end of the last reply
    for i in [*replies, len(turns)]:
        try:
            text = tokenizer.apply_chat_template(
                messages[:i], tokenize=False, add_generation_prompt=True
            )
        except Refused as error:
            roles = ", ".join(turn.role for turn in turns[:i])
            raise TemplateError(
                f"models.prompt: the tokenizer's chat template refuses the turns {roles}: {error}; "
                "take another template, or leave such conversations out"
            ) from error
        if not text.startswith(said):
            raise TemplateError(
                "models.prompt: the tokenizer's chat template does not repeat an earlier reply as "
                f"it stands, {said[-60:]!r}; take another template for conversations"
            )
        rest = text[len(said) :]
        if cues:
            end = max((s for s in special if rest.startswith(s)), key=len, default="")
            cues[-1] = Cue(cues[-1].prompt, end=end)
            rest = rest.removeprefix(end)
        cues.append(Cue(rest))
        said = text + turns[i].content if i < len(turns) else text
    return cues


@prompt_template("chat", version=1, special_tokens=False, turns=chat_turns)
def chat(instruction: str, context: str, tokenizer: Any) -> tuple[str, str]:
    """The tokenizer's own chat template; one turn of the user."""
    content = f"{instruction}\n\n{context}" if context else instruction
    turns = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), ""
