"""What a study measures, and a measure of the user's own, outside of the package."""

from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from im_assets.experiments.measures import (
    Measure,
    MeasureError,
    instructions_for,
    measure,
    measured,
    measures_of,
)
from im_assets.judging.comparing import asked_instructions
from im_resources.study import JudgeSettings, Study

JUDGE = {"backend": "local", "instructions": 2}


@measure("mean_words", version=1, reads="answers", direction="lower", unit="words")
def mean_words(rows: pd.DataFrame, answer_tokens: int) -> float:
    """Words in a response, of at most so many tokens."""
    assert answer_tokens == 7
    return float(rows["response"].str.split().str.len().mean())


def study_with(**blocks: Any) -> Study:
    data = {"path": "unused.jsonl"}
    base = {"path": "unused"}
    return Study.model_validate(
        {
            "name": "small",
            "data": {"candidates": {"a": data}, "unseen": data, "evaluation": data},
            "models": {"base": base, "embedding": base},
            "scoring": {"indicators": {"len_out": "response_length"}},
            **blocks,
        }
    )


def _names(**blocks: Any) -> list[str]:
    return [m.name for m in measures_of(study_with(**blocks))]


def test_the_loss_alone_unless_more_is_asked_for() -> None:
    assert _names() == ["loss"]


def test_the_target_is_measured_too_and_nothing_twice() -> None:
    asked = {"measures": ["instruction_loss", "exact_match"]}
    assert _names(evaluation=asked, rule={"target": "exact_match"}) == asked["measures"]
    assert _names(evaluation=asked) == [*asked["measures"], "loss"]


def test_a_measure_of_ones_own() -> None:
    study = study_with(evaluation={"measures": ["mean_words"], "answer_tokens": 7})
    mine = measures_of(study)[0]
    rows = pd.DataFrame({"seed": ["x", "x", "y"], "response": ["a b", "a b c d", "one"]})
    assert measured(mine, rows, "seed") == {"x": 3.0, "y": 1.0}
    assert (mine.label, mine.unit) == ("mean words", "words")
    assert mine.description == "Words in a response, of at most so many tokens."


def test_an_unknown_measure_is_named_with_its_neighbour() -> None:
    with pytest.raises(MeasureError, match=r"evaluation\.measures: unknown measure 'exct_match'"):
        _names(evaluation={"measures": ["exct_match"]})
    with pytest.raises(MeasureError, match=r"rule\.target.*did you mean 'exact_match'"):
        _names(rule={"target": "exct_match"})


def test_a_win_rate_needs_a_judge() -> None:
    with pytest.raises(MeasureError, match=r"win_rate reads a judge's verdicts"):
        _names(evaluation={"measures": ["win_rate"]})
    assert "win_rate" in _names(evaluation={"measures": ["win_rate"]}, judge=JUDGE)


def test_a_parameter_that_is_no_setting_is_an_error() -> None:
    @measure("odd", version=1, reads="answers")
    def odd(rows: pd.DataFrame, temperature: float) -> float:
        return temperature

    with pytest.raises(MeasureError, match="'temperature' is no setting of `evaluation`"):
        _names(evaluation={"measures": ["odd"]})


def test_a_number_that_is_not_finite_is_an_error() -> None:
    broken = Measure("broken", lambda rows: float("nan"), 1, "losses")
    with pytest.raises(MeasureError, match="'broken' is nan"):
        broken.of(pd.DataFrame())


ROWS = pd.DataFrame(
    {
        "eval_id": ["a", "a", "b", "c", "d"],
        "instruction": ["A?", "A?", "B?", "C?", "D?"],
        "input": "",
        "category": "",
        "answer": ["", "", "2", "", "4"],
        "pattern": ["", "", "", "c", ""],
    }
)


def _asked(names: list[str], judge: dict[str, Any] | None = None) -> list[str]:
    study = study_with(
        evaluation={"measures": names, "answer_tokens": 7}, **({"judge": judge} if judge else {})
    )
    settings = None if judge is None else JudgeSettings.model_validate(judge)
    return list(instructions_for(measures_of(study), ROWS, settings)["eval_id"])


def test_only_what_the_measures_need_is_answered() -> None:
    assert _asked(["loss"]) == []
    assert _asked(["exact_match"]) == ["b", "d"]
    assert _asked(["exact_match", "pattern_match"]) == ["b", "c", "d"]
    assert _asked(["mean_words"]) == ["a", "b", "c", "d"]
    assert _asked(["exact_match", "win_rate"], JUDGE | {"take": "first"}) == ["a", "b", "d"]


def test_the_judge_is_asked_about_a_sample_that_grows_with_its_size() -> None:
    sizes = [set(_asked(["win_rate"], JUDGE | {"instructions": n})) for n in (1, 2, 3, 4)]
    assert [len(asked) for asked in sizes] == [1, 2, 3, 4]
    assert all(small < large for small, large in pairwise(sizes))
    chosen = [_asked(["win_rate"], JUDGE | {"sample_seed": seed}) for seed in range(12)]
    assert len(set(map(tuple, chosen))) > 2
    # The pairwise judge compares the answers to the same ones.
    settings = JudgeSettings.model_validate(JUDGE)
    assert list(asked_instructions(ROWS, settings)["eval_id"]) == chosen[0]


def test_a_set_without_answers_is_an_error_that_names_the_field() -> None:
    study = study_with(evaluation={"measures": ["exact_match"]})
    old = ROWS.drop(columns=["answer", "pattern"])
    with pytest.raises(MeasureError, match=r"exact_match needs the field 'answer'.*fields\.answer"):
        instructions_for(measures_of(study), old, None)
