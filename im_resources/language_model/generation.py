"""Greedy answers in batches: what a finetuned model says, the same at every run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from im_resources.language_model.batching import by_length
from im_resources.language_model.prompts import Encoded


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
    # Every rule that a checkpoint may bring along in its own settings is undone: answers of two
    # models have to differ by their weights alone.
    plain = GenerationConfig(
        max_new_tokens=new_tokens,
        min_new_tokens=0,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
    )
    # An answer takes its longest length in the plan: the cache of keys and values grows to it.
    plan = list(by_length([Encoded(tuple(p), ((pad,) * new_tokens,)) for p in prompts],
                          tokens_per_batch))  # fmt: skip
    answers: dict[int, Answer] = {}
    for number, items in enumerate(plan, 1):
        width = max(len(prompts[i]) for i in items)
        ids = torch.full((len(items), width), pad)
        mask = torch.zeros_like(ids)
        for row, item in enumerate(items):
            ids[row, width - len(prompts[item]) :] = torch.tensor(prompts[item])
            mask[row, width - len(prompts[item]) :] = 1
        with torch.inference_mode():
            grown = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=plain,
            )
        for item, row in zip(items, grown[:, width:].tolist(), strict=True):
            answers[item] = _answer(tokenizer, row)
        if on_batch is not None:
            on_batch(number, len(plan), grown.numel())
    return [answers[i] for i in range(len(prompts))]


def _answer(tokenizer: Any, ids: list[int]) -> Answer:
    complete = tokenizer.eos_token_id in ids
    kept = ids[: ids.index(tokenizer.eos_token_id)] if complete else ids
    text = tokenizer.decode(kept, skip_special_tokens=True).strip()
    return Answer(text, len(kept) + complete, complete)
