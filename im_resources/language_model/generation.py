"""Greedy answers in batches: what a finetuned model says, the same at every run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from im_resources.language_model.batching import by_length
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.side_by_side import stop_point
from im_resources.usage import count


@dataclass(frozen=True)
class Answer:
    """``text`` without the blanks around it; ``tokens`` generated, the end-of-sequence one too;
    ``complete``: the model ended it itself, before the longest allowed length."""

    text: str
    tokens: int
    complete: bool


def greedy_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    tokens_per_batch: int,
    on_batch: Callable[[int, int, int], None] | None = None,
) -> list[Answer]:
    """The most likely next token, again and again, for every prompt.

    Prompts of like length share a batch, padded on the left so that all answers start in the same
    column. Padding is masked and positions count from a prompt's own start, so an answer is that of
    the prompt alone, up to the rounding of the precision in use.

    Args:
        model: a causal language model (inside a PEFT model, its base model with the adapter).
        prompts: token ids, each prompt up to its response cue.
        new_tokens: longest answer.
        tokens_per_batch: padded tokens of a batch at its end, answers included; a longer prompt is
            a batch of its own.
        on_batch: called after each batch with (batch, batches, tokens of the batch).

    Raises:
        ValueError: a prompt without tokens.
    """
    from transformers import GenerationConfig

    if not all(prompts):
        raise ValueError(f"prompt {[bool(p) for p in prompts].index(False)} has no tokens")
    model.eval()
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    plain = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
    )
    # An answer takes its longest length in the plan: the cache of keys and values grows to it.
    plan = list(by_length([Encoded(tuple(p), ((pad,) * new_tokens,)) for p in prompts],
                          tokens_per_batch))  # fmt: skip
    answers: dict[int, Answer] = {}
    # A checkpoint may bring rules of its own (sampling, a repetition penalty, forced tokens), and
    # what is not said above would be taken from there.
    own, model.generation_config = model.generation_config, plain
    try:
        for number, items in enumerate(plan, 1):
            stop_point()
            ids, mask = left_padded([prompts[i] for i in items], pad)
            with torch.inference_mode():
                grown = model.generate(
                    input_ids=ids.to(model.device), attention_mask=mask.to(model.device)
                )
            count(tokens=grown.numel())
            for item, row in zip(items, grown[:, ids.shape[1] :].tolist(), strict=True):
                answers[item] = _answer(tokenizer, row)
            if on_batch is not None:
                on_batch(number, len(plan), grown.numel())
    finally:
        model.generation_config = own
    return [answers[i] for i in range(len(prompts))]


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of the prompts, both int64 [prompts, width], ending alike."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


def _answer(tokenizer: Any, ids: list[int]) -> Answer:
    complete = tokenizer.eos_token_id in ids
    kept = ids[: ids.index(tokenizer.eos_token_id)] if complete else ids
    text = tokenizer.decode(kept, skip_special_tokens=True).strip()
    return Answer(text, len(kept) + complete, complete)
