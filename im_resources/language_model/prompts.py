"""How an example becomes tokens: prompt template, response, and where a long one is cut.

The paper does not print its template, so it is a setting (``models.prompt``). All templates end
where the response starts, and the loss is taken over response tokens only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

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
    """
    prompt = _prompt_ids(tokenizer, template, instruction, context)
    bodies = [
        tokenizer(_lead(template) + output, add_special_tokens=False)["input_ids"]
        + [tokenizer.eos_token_id]
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


def _prompt_ids(tokenizer: Any, template: str, instruction: str, context: str) -> list[int]:
    if template == "chat":
        content = f"{instruction}\n\n{context}" if context else instruction
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if template == "alpaca":
        # The Stanford Alpaca template, https://github.com/tatsu-lab/stanford_alpaca#data-release
        head = (
            "Below is an instruction that describes a task"
            + (", paired with an input that provides further context" if context else "")
            + ". Write a response that appropriately completes the request.\n\n"
        )
        given = f"### Input:\n{context}\n\n" if context else ""
        text = f"{head}### Instruction:\n{instruction}\n\n{given}### Response:\n"
    elif template == "plain":
        text = f"Question: {instruction}\n{context + chr(10) if context else ''}Answer:"
    else:
        raise ValueError(f"unknown prompt template {template!r}; known: plain, alpaca, chat")
    return list(tokenizer(text)["input_ids"])


def _lead(template: str) -> str:
    """What stands between the response cue and the response, tokenized with the response."""
    return " " if template == "plain" else ""
