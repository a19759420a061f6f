"""Evaluation losses: which rows, which mean, and what makes them another measurement."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.experiments.checks import losses_are_finite
from im_assets.experiments.evaluation import (
    encode_evaluation,
    evaluate_base,
    evaluation_fingerprint,
    evaluation_rows,
    losses_frame,
    overall,
    told_rows,
)
from im_resources.gpu import GpuResource
from im_resources.study import EvaluationSettings, Study, load_study

# Three instructions with 2, 1 and 3 reference outputs; the second's rows stand apart.
EVAL_SET = pd.DataFrame(
    [
        ("e1", 0, "Name a fruit.", "", "A fig."),
        ("e2", 0, "Add them.", "1 and 2", "Three."),
        ("e1", 1, "Name a fruit.", "", "An apple, for example."),
        ("e3", 0, "Say hello.", "", "Hello!"),
        ("e3", 1, "Say hello.", "", "Good day to you."),
        ("e3", 2, "Say hello.", "", "Hi there, how are you today?"),
    ],
    columns=["eval_id", "output_index", "instruction", "input", "output"],
)

LOSSES = pd.DataFrame(
    [("a", 0, 4.0, 2), ("a", 1, 30.0, 10), ("b", 0, 5.0, 5)],
    columns=["eval_id", "output_index", "nll", "tokens"],
)
LOSSES["loss"] = LOSSES["nll"] / LOSSES["tokens"]  # 2, 3, 1


def study_with(**blocks: dict[str, Any]) -> Study:
    study = load_study("demo")
    return study.model_copy(
        update={name: getattr(study, name).model_copy(update=b) for name, b in blocks.items()}
    )


def kept(**settings: Any) -> list[tuple[str, int]]:
    rows = evaluation_rows(EVAL_SET, EvaluationSettings(**settings))
    assert list(rows.index) == list(range(len(rows)))
    return list(zip(rows["eval_id"], rows["output_index"], strict=True))


def test_rows_are_cut_to_the_first_instructions_and_outputs() -> None:
    first = partial(kept, take="first")
    assert first() == [("e1", 0), ("e2", 0), ("e1", 1), ("e3", 0), ("e3", 1), ("e3", 2)]
    assert first(max_instructions=2) == [("e1", 0), ("e2", 0), ("e1", 1)]
    assert first(max_outputs=1) == [("e1", 0), ("e2", 0), ("e3", 0)]
    assert first(max_instructions=1, max_outputs=1) == [("e1", 0)]
    assert first(max_instructions=99, max_outputs=99) == first() == kept()


def a_set(count: int) -> pd.DataFrame:
    rows = [
        (f"e{i}", k, f"Ask {i}.", "", f"Say {i} and {k}.") for i in range(count) for k in range(3)
    ]
    return pd.DataFrame(rows, columns=EVAL_SET.columns)


def texts(frame: pd.DataFrame, **settings: Any) -> set[str]:
    return set(evaluation_rows(frame, EvaluationSettings(**settings))["output"])


def test_a_sample_of_the_set_depends_on_contents_and_seed_alone() -> None:
    frame, settings = a_set(40), {"max_instructions": 10, "max_outputs": 2}
    taken = texts(frame, **settings)
    assert len(taken) == 20
    shuffled = frame.sample(frac=1, random_state=1)
    shuffled["output_index"] = shuffled.groupby("eval_id").cumcount()
    assert texts(shuffled, **settings) == taken
    assert texts(frame, **settings, sample_seed=1) != taken
    assert texts(frame, **settings, take="first") != taken
    assert texts(frame, **(settings | {"max_instructions": 20})) > taken
    rows = evaluation_rows(frame, EvaluationSettings(**settings))
    assert rows["eval_id"].str[1:].astype(int).is_monotonic_increasing  # the set's order stays


def test_an_instruction_more_displaces_at_most_one() -> None:
    taken = [texts(a_set(count), max_instructions=10) for count in range(10, 60)]
    assert {len(before - after) for before, after in pairwise(taken)} == {0, 3}  # three outputs


def test_what_was_taken_is_told_with_both_numbers() -> None:
    frame = a_set(40)
    for settings, said in [
        ({"max_instructions": 10}, "10 of 40 instructions, 30 of 120 outputs: a sample (seed 0)"),
        (
            {"max_outputs": 1, "take": "first"},
            "40 of 40 instructions, 40 of 120 outputs: the first",
        ),
        ({"max_instructions": 40}, "all 40 instructions, 120 outputs"),
    ]:
        wanted = EvaluationSettings.model_validate(settings)
        assert told_rows(frame, evaluation_rows(frame, wanted), wanted) == said


def test_the_two_means_by_hand() -> None:
    assert overall(LOSSES, "token") == pytest.approx((4 + 30 + 5) / (2 + 10 + 5))
    assert overall(LOSSES, "instruction") == pytest.approx(((2 + 3) / 2 + 1) / 2)


@given(st.permutations(range(3)))
def test_a_mean_does_not_depend_on_the_order_of_rows(order: list[int]) -> None:
    for weighting in ("token", "instruction"):
        expected = overall(LOSSES, weighting)
        assert overall(LOSSES.iloc[order], weighting) == pytest.approx(expected, rel=1e-12)


def test_a_repeated_reference_moves_tokens_but_not_other_instructions() -> None:
    more = pd.concat([LOSSES, LOSSES[2:].assign(output_index=1)])
    assert overall(more, "instruction") == pytest.approx(overall(LOSSES, "instruction"))
    assert overall(more, "token") < overall(LOSSES, "token")


def key(eval_set: pd.DataFrame = EVAL_SET, **blocks: dict[str, Any]) -> str:
    study = study_with(**blocks)
    return evaluation_fingerprint(evaluation_rows(eval_set, study.evaluation), study)


@pytest.mark.parametrize("column", ["instruction", "input", "output"])
def test_another_text_is_another_measurement(column: str) -> None:
    other = EVAL_SET.copy()
    other[column] = [*other[column][:3], "Another?", *other[column][4:]]
    assert key(other) != key()


@pytest.mark.parametrize(
    "blocks",
    [
        {"evaluation": {"max_instructions": 2}},
        {"evaluation": {"max_outputs": 1}},
        {"evaluation": {"max_output_tokens": 5}},
        {"models": {"prompt": "alpaca"}},
        {"models": {"max_length": 65}},
    ],
)
def test_another_setting_is_another_measurement(blocks: dict[str, dict[str, Any]]) -> None:
    assert key(EVAL_SET, **blocks) != key()


def test_how_it_is_computed_or_averaged_is_no_other_measurement() -> None:
    assert key(evaluation={"tokens_per_batch": 64}) == key()
    assert key(evaluation={"weighting": "instruction"}) == key()
    assert key(evaluation={"max_instructions": 3}) == key()  # all there are
    assert key(EVAL_SET.copy()) == key()


@pytest.mark.model
def test_the_base_models_losses_are_those_of_plain_transformers() -> None:
    import torch

    study = study_with(
        models={"precision": "fp32", "max_length": 64}, evaluation={"max_output_tokens": 6}
    )
    gpu = GpuResource(device="cpu", side_by_side=1)
    rows = evaluation_rows(EVAL_SET, study.evaluation)
    losses = evaluate_base(rows, study, gpu)
    assert list(losses["eval_id"]) == ["e1", "e1", "e2", "e3", "e3", "e3"]
    assert list(losses["output_index"]) == [0, 1, 0, 0, 1, 2]
    assert losses["tokens"].max() == 6
    base = gpu.base_model(study)
    texts = rows.set_index(["eval_id", "output_index"])
    for loss in losses.to_dict("records"):
        row = texts.loc[(loss["eval_id"], loss["output_index"])]
        context = f"{row['input']}\n" if row["input"] else ""
        prompt = base.tokenizer(f"Question: {row['instruction']}\n{context}Answer:")["input_ids"]
        output = base.tokenizer(f" {row['output']}", add_special_tokens=False)["input_ids"]
        output = [*output, base.tokenizer.eos_token_id][:6]
        with torch.no_grad():
            labels = torch.tensor([[-100] * len(prompt) + output])
            expected = base.model(torch.tensor([prompt + output]), labels=labels).loss
        assert loss["tokens"] == len(output)
        assert loss["loss"] == pytest.approx(float(expected), rel=1e-4)
        assert loss["nll"] == pytest.approx(loss["loss"] * loss["tokens"])
    one_a_batch = study_with(
        models={"precision": "fp32", "max_length": 64},
        evaluation={"max_output_tokens": 6, "tokens_per_batch": 1},
    )
    again = evaluate_base(rows, one_a_batch, gpu)
    np.testing.assert_allclose(again["loss"], losses["loss"], rtol=1e-4)
    [first, *_] = encode_evaluation(rows, base.tokenizer, study)
    assert len(first.outputs) == 2


def test_losses_stand_beside_their_output() -> None:
    class Given:
        nll, tokens = np.arange(6) + 1.0, np.array([1, 2, 1, 2, 1, 2])

    frame = losses_frame(EVAL_SET, Given())
    assert list(zip(frame["eval_id"], frame["output_index"], frame["nll"], strict=True)) == [
        ("e1", 0, 1), ("e1", 1, 2), ("e2", 0, 3), ("e3", 0, 4), ("e3", 1, 5), ("e3", 2, 6),
    ]  # fmt: skip
    assert list(frame["loss"]) == [1, 1, 3, 2, 5, 3]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_the_check_fails_on_a_loss_that_is_not_one(bad: float) -> None:
    assert losses_are_finite(LOSSES).passed
    result = losses_are_finite(LOSSES.assign(loss=[2.0, bad, 1.0]))
    assert not result.passed
    assert result.metadata["not finite"].value == 1
    assert "'output_index': 1" in str(result.metadata["first"].value)


def test_the_check_fails_when_nothing_was_evaluated() -> None:
    assert not losses_are_finite(LOSSES[:0]).passed
