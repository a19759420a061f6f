"""Rounds of a study whose rule predicts what is measured of answers, and reports on what is held
out of every fit."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from im_assets.experiments.holdout import Split, split_of
from im_assets.experiments.measures import measure
from im_assets.rule.document import load_rule
from tests.study import Platform, write_profile

KINDS = ("samples", "adapters", "losses", "answers", "verdicts")


@measure("signs", version=1, reads="answers", unit="signs")
def signs(rows: pd.DataFrame) -> float:
    """Mean length of a response."""
    return float(rows["response"].str.len().mean())


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("rounds_of_signs")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(folder / "var"))
        profile = write_profile(
            folder,
            tiny_folder,
            "signs",
            finetuning={"learning_rate": 0.05, "epochs": 2},
            evaluation={"measures": ["loss", "win_rate"], "answer_tokens": 6, "holdout": 0.4},
            rule={"target": "signs"},
            judge={"backend": "local", "instructions": 3},
            mining={"rounds": 2, "seeds": 2},
        )
        questions = [{"instruction": f"What is thing {i}?", "outputs": [f"It is {i}."]}
                     for i in range(16)]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in questions)
        (folder / "data" / "evaluation.jsonl").write_text(text, encoding="utf-8")
        found = Platform(profile, instance)
        found.run_all()
        yield found


def split(platform: Platform) -> Split:
    return split_of(platform.table("eval_set"), platform.study.evaluation)


def measured(platform: Platform, number: int, eval_ids: frozenset[str]) -> pd.Series:
    answers = platform.table(f"round_{number}_answers")
    answers = answers[answers["eval_id"].isin(eval_ids)]
    return answers.groupby("arm")["response"].apply(lambda texts: texts.str.len().mean())


def test_errors_are_of_what_is_fitted_on_and_gains_of_what_is_held_out(platform: Platform) -> None:
    table, parts = platform.table("mining_rounds").set_index("round"), split(platform)
    assert not parts.fitting.eval_ids & parts.reported.eval_ids
    for number in (1, 2):
        rule = load_rule(platform.table(f"round_{number}_rule"))
        assert (rule.target, rule.direction) == ("signs", "higher")
        means = platform.warehouse.query(
            "SELECT arm, indicator, avg(sign(value) * ln(1 + abs(value))) AS x "
            f"FROM round_{number}_samples JOIN example_scores USING (example_id) GROUP BY ALL"
        ).pivot(index="arm", columns="indicator", values="x")
        errors = measured(platform, number, parts.fitting.eval_ids) - rule.predict_points(means)
        assert table["rmse"][number] == pytest.approx(np.sqrt(np.mean(errors**2)))
        values = measured(platform, number, parts.reported.eval_ids)
        by_arm = values.groupby(values.index.str.split("-").str[0]).mean()
        assert table["less_random"][number] == pytest.approx(by_arm["rule"] - by_arm["random"])


def test_the_highest_predictions_are_selected(platform: Platform) -> None:
    samples = platform.table("round_1_samples")
    means = samples.groupby("arm")["predicted_signs"].mean()
    by_arm = means.groupby(means.index.str.split("-").str[0]).mean()
    assert by_arm["rule"] > by_arm["random"]


def test_a_stopped_round_has_neither_answers_nor_verdicts(platform: Platform) -> None:
    platform.change(rule={"p_enter": 1e-9, "p_remove": 1e-8})
    assert platform.materialize("round_1_rule").success
    assert platform.materialize(*(f"round_1_{kind}" for kind in KINDS)).success
    assert all(platform.table(f"round_1_{kind}").empty for kind in KINDS)
