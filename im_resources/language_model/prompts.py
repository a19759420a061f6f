"""How an example becomes tokens: prompt template, response, and where a long one is cut.

All templates (``models.prompt``) end where the response starts, and the loss is taken over response
tokens only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from im_resources.language_model.template_registry import template_of, write_prompt
from im_resources.study import ModelSettings

# What is kept of a prompt's end when its middle is cut: enough for every template's response cue.
PROMPT_TAIL = 12


@dataclass(frozen=True)
class Encoded:
    """One instruction as token ids: the prompt, and one or more responses to it."""

    prompt: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        """Tokens of the prompt and all its responses."""
        return len(self.prompt) + sum(map(len, self.outputs))


def encode(
    tokenizer: Any,
    template: str,
    instruction: str,
    context: str,
    outputs: Sequence[str],
    max_length: int,
    max_output_tokens: int | None = None,
) -> Encoded:
    """Tokenize one instruction with its responses.

    Each prompt + response is at most ``max_length`` tokens. A prompt gives way first, down to half
    of that (its middle is cut, so that the question's start and the response cue stay); then the
    response loses its end. Only an uncut response closes with the end-of-sequence token.

    Raises TemplateError when there is no such template.
    """
    found = template_of(template)
    text, lead = write_prompt(found, instruction, context, tokenizer)
    prompt = list(tokenizer(text, add_special_tokens=found.special_tokens)["input_ids"])
    bodies = [
        tokenizer(lead + output, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        for output in outputs
    ]
    if max_output_tokens is not None:
        bodies = [body[:max_output_tokens] for body in bodies]
    longest = max(map(len, bodies), default=0)
    room = max(max_length // 2, max_length - longest)
    if len(prompt) > room:
        tail = min(PROMPT_TAIL, room * 3 // 4)
        prompt = prompt[: room - tail] + prompt[-tail:]
    return Encoded(tuple(prompt), tuple(tuple(b[: max_length - len(prompt)]) for b in bodies))


def encode_examples(tokenizer: Any, models: ModelSettings, examples: pd.DataFrame) -> list[Encoded]:
    """Tokenize examples (columns instruction, input, output) by the study's template and length."""
    columns = (examples[name].tolist() for name in ("instruction", "input", "output"))
    return [
        encode(tokenizer, models.prompt, instruction, context, [output], models.max_length)
        for instruction, context, output in zip(*columns, strict=True)
    ]
