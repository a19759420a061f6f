"""Greedy answers in padded batches are those of each prompt alone."""

from typing import Any

import pytest
import torch

from im_resources.language_model.generation import Answer, greedy_answers
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.prompts import encode
from tests.language_model.models import EXAMPLES


def prompts(tokenizer: Any) -> list[tuple[int, ...]]:
    return [encode(tokenizer, "plain", i, c, [], 64).prompt for i, c, _ in EXAMPLES]


def by_hand(base: LoadedModel, prompt: tuple[int, ...], new_tokens: int) -> list[int]:
    """The likeliest token again and again: whole forward passes, no padding and no cache."""
    ids, end = list(prompt), base.tokenizer.eos_token_id
    with torch.inference_mode():
        for _ in range(new_tokens):
            logits = base.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            ids.append(int(logits.argmax()))
            if ids[-1] == end:
                break
    return ids[len(prompt) :]


def check(base: LoadedModel, new_tokens: int, first: int = len(EXAMPLES)) -> list[Answer]:
    given = prompts(base.tokenizer)[:first]
    assert len({len(p) for p in given}) > 2  # so that batches are padded
    together = greedy_answers(base.model, base.tokenizer, given, new_tokens, 10_000)
    assert together == greedy_answers(base.model, base.tokenizer, given, new_tokens, 10_000)
    for prompt, answer in zip(given, together, strict=True):
        assert greedy_answers(base.model, base.tokenizer, [prompt], new_tokens, 1) == [answer]
        ids = by_hand(base, prompt, new_tokens)
        assert answer.tokens == len(ids)
        assert answer.complete == (ids[-1] == base.tokenizer.eos_token_id)
        text = base.tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.text == text.strip()
    return together


def test_a_batch_equals_each_prompt_alone(tiny_model: LoadedModel) -> None:
    answers = check(tiny_model, 12)
    assert len({a.text for a in answers}) == len(answers)


@pytest.mark.model
def test_a_batch_equals_each_prompt_alone_for_a_real_model(smol_model: LoadedModel) -> None:
    answers = check(smol_model, 6, 3)
    assert "bread" in answers[2].text


def test_an_answer_ends_where_the_model_ends_it(tiny_model: LoadedModel) -> None:
    """The end-of-sequence token made likeliest after some tokens: others go on beside it."""
    tokenizer, given = tiny_model.tokenizer, prompts(tiny_model.tokenizer)
    free = greedy_answers(tiny_model.model, tokenizer, given, 8, 10_000)
    third = {by_hand(tiny_model, p, 3)[2] for p in given[:2]}  # what two prompts say third

    def end_there(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        chosen = logits[..., list(third)].amax(-1) >= logits.amax(-1)
        logits[..., tokenizer.eos_token_id] += chosen * 1e4
        return logits

    hook = tiny_model.model.get_output_embeddings().register_forward_hook(end_there)
    try:
        ended = greedy_answers(tiny_model.model, tokenizer, given, 8, 10_000)
        alone = [greedy_answers(tiny_model.model, tokenizer, [p], 8, 1)[0] for p in given]
    finally:
        hook.remove()
    assert ended == alone
    assert all(a.complete and a.tokens <= 3 for a in ended[:2])
    for before, after in zip(free, ended, strict=True):
        assert before.text.startswith(after.text)
        assert after.complete or after == before


def test_a_checkpoints_own_sampling_settings_do_not_count(tiny_model: LoadedModel) -> None:
    given = prompts(tiny_model.tokenizer)
    plain = greedy_answers(tiny_model.model, tiny_model.tokenizer, given, 6, 10_000)
    other = tiny_model.replica()
    other.generation_config.update(
        do_sample=True, temperature=5.0, top_k=3, repetition_penalty=5.0, min_new_tokens=6,
        no_repeat_ngram_size=2, num_beams=3, max_length=3, suppress_tokens=list(range(40_000)),
    )  # fmt: skip
    assert greedy_answers(other, tiny_model.tokenizer, given, 6, 10_000) == plain
    assert other.generation_config.num_beams == 3


def test_progress_and_an_empty_prompt(tiny_model: LoadedModel) -> None:
    steps: list[tuple[int, int, int]] = []
    given = prompts(tiny_model.tokenizer)
    greedy_answers(tiny_model.model, tiny_model.tokenizer, given, 2, 30, lambda *s: steps.append(s))
    assert [s[0] for s in steps] == list(range(1, len(steps) + 1))
    assert {s[1] for s in steps} == {len(steps)}
    assert len(steps) > 1
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        greedy_answers(tiny_model.model, tiny_model.tokenizer, [(5,), ()], 2, 30)
    assert greedy_answers(tiny_model.model, tiny_model.tokenizer, [], 2, 30) == []
