"""A whole study whose rule predicts what its user measures: other columns, words and direction."""

import json
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from im_assets.experiments.measures import measure
from im_assets.rule.document import load_rule
from tests.study import Platform, write_profile


@measure("letters", version=1, reads="answers", unit="letters")
def letters(rows: pd.DataFrame) -> float:
    """Mean length of a response, in letters."""
    return float(rows["response"].str.len().mean())


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Platform:
    folder = tmp_path_factory.mktemp("other_target")
    profile = write_profile(
        folder,
        tiny_folder,
        "other-target",
        finetuning={"learning_rate": 0.05, "epochs": 2},
        evaluation={"measures": ["loss", "win_rate"], "answer_tokens": 6},
        rule={"target": "letters"},
        judge={"backend": "local", "instructions": 3},
        univariate={"bins": 4, "indicators": ["len_out"], "size": 4, "bootstrap": 50},
        validation={"sizes": [4], "seeds": 2, "deciles": 4, "noise_repeats": 2,
                    "strategies": {"rule": "rule", "random": "random"}},
    )  # fmt: skip
    made = Platform(profile, dg.DagsterInstance.ephemeral())
    made.run_all()
    return made


def test_the_points_hold_every_measure(platform: Platform) -> None:
    points = platform.table("indicator_table")
    answers = platform.table("mixture_answers")
    expected = answers.groupby("seed")["response"].apply(lambda texts: texts.str.len().mean())
    assert points.set_index("partition")["letters"].to_dict() == pytest.approx(expected.to_dict())
    assert points["win_rate"].between(0, 1).all()
    assert (points["log_loss"] == np.log(points["loss"])).all()


def test_the_rule_predicts_the_target_and_the_selection_takes_the_highest(
    platform: Platform,
) -> None:
    rule = load_rule(platform.table("quality_rule"))
    assert (rule.target, rule.scale, rule.direction) == ("letters", "identity", "higher")
    assert rule.formula.startswith("letters = ")
    selection = platform.table("dolly_selection").sort_values("rank")
    predicted = selection["predicted_letters"].to_numpy()
    assert (np.diff(predicted) <= 0).all()
    assert predicted[0] > predicted[-1]


def test_validation_and_bins_are_of_the_target(platform: Platform) -> None:
    runs, verdicts = platform.table("validation_runs"), platform.table("selection_validation")
    answers = platform.table("selection_answers")
    expected = answers.groupby("arm")["response"].apply(lambda texts: texts.str.len().mean())
    assert runs.set_index("arm")["letters"].to_dict() == pytest.approx(expected.to_dict())
    assert list(verdicts["letters"]) == sorted(verdicts["letters"], reverse=True)
    deciles = platform.table("rule_deciles").sort_values("decile")
    assert (np.diff(deciles["predicted"]) <= 0).all()  # 1 is the best by the rule
    assert {"letters"} <= set(platform.table("univariate_bins").columns)


def test_answers_of_other_instructions_are_told(platform: Platform) -> None:
    platform.change(evaluation={"answer_tokens": 5})
    try:
        result = platform.materialize("indicator_table")
        checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
        told = checks["mixtures_parts_agree"]
        assert not told.passed
        assert "answers to other instructions, or of another length" in str(told.description)
        assert "materialize mixture_answers" in str(told.description)
        assert platform.table("indicator_table").empty
    finally:
        platform.change(evaluation={"answer_tokens": 6})
        assert platform.materialize("indicator_table").success


def test_the_report_speaks_of_the_target(platform: Platform) -> None:
    report = json.loads((platform.study.folder / "report" / "report.json").read_text("utf-8"))
    sections = report["sections"]
    answer = sections["answer"]["texts"][0]
    # Few mixtures of a few letters: which of the two it is depends on what the model answers.
    assert "higher letters with" in answer or "shuffled values of letters" in answer
    assert sections["measures"]["title"] == "Is the letters the right target here?"
    rows = sections["measures"]["tables"]["measure_agreement"]["rows"]
    assert [row["measure"] for row in rows] == ["loss", "win rate"]
    assert sections["mixtures"]["facts"]["lowest"]["label"] == "lowest letters"
    assert "the letters is" in " ".join(sections["validation"]["texts"])
    page = (platform.study.folder / "report" / "index.html").read_text("utf-8")
    assert "log loss" not in page.split("Exact settings")[0]
