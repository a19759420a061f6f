"""Instructions that no rule is fitted on: which they are, and that what is reported is on these."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.experiments.evaluation import overall
from im_assets.experiments.holdout import HoldoutError, held_out, reported_rows, split_of
from im_resources.study import EvaluationSettings, fingerprint
from im_resources.turns import Turn, write_turns
from tests.study import Platform, copied

WORDS = [f"thing{i}" for i in range(400)]


def rows(texts: list[str], outputs: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        [(fingerprint(text), k, text, "", f"{k}") for text in texts for k in range(outputs)],
        columns=["eval_id", "output_index", "instruction", "input", "output"],
    )


def settings(**changes: Any) -> EvaluationSettings:
    return EvaluationSettings.model_validate({"holdout": 0.3, **changes})


@given(st.lists(st.sampled_from(WORDS), unique=True), st.sampled_from(WORDS))
def test_an_instruction_more_moves_no_other(texts: list[str], more: str) -> None:
    before = held_out(rows(texts), 0.3)
    after = held_out(rows([more, *(t for t in texts if t != more)]), 0.3)
    assert after - before <= {fingerprint(more)}
    assert before <= after


def test_a_larger_share_holds_the_smaller_and_each_is_about_its_size() -> None:
    table, before = rows(WORDS), set[str]()
    for share in (0.1, 0.25, 0.5, 0.9):
        found = held_out(table, share)
        assert before <= found
        # Binomial, 4 standard deviations.
        assert abs(len(found) - 400 * share) < 4 * np.sqrt(400 * share * (1 - share))
        before = found


def test_references_stay_together_and_the_parts_are_all() -> None:
    table = rows(WORDS[:60], outputs=3)
    split = split_of(table, settings())
    assert not split.fitting.eval_ids & split.reported.eval_ids
    assert split.fitting.eval_ids | split.reported.eval_ids == set(table["eval_id"])
    assert split.fitting.total == split.reported.total == 60
    out = reported_rows(table, settings())
    assert set(out["eval_id"]) == split.reported.eval_ids
    assert (out.groupby("eval_id").size() == 3).all()
    count = len(split.reported.eval_ids)
    assert split.reported.words == f"the {count} of 60 instructions that are held out of every fit"


def test_copies_in_another_layout_fall_on_the_same_side() -> None:
    for text in ("What is the capital of Peru?", "Sag mir, wie spät es ist!", "写一首诗。"):
        copies = [text, text.upper(), f"  {text} ", text.rstrip("?!。"), text.replace(" ", "\n")]
        for share in (0.2, 0.5, 0.8):
            assert len(held_out(rows(copies), share)) in (0, len(set(copies)))


def test_a_conversation_is_placed_by_its_turns() -> None:
    turns = [write_turns([Turn("user", f"{w}?"), Turn("assistant", "Yes."), Turn("user", "Go on.")])
             for w in WORDS[:80]]  # fmt: skip
    table = rows(WORDS[:80], outputs=1).assign(instruction="Go on.", turns=turns)
    assert 10 < len(held_out(table, 0.3)) < 40  # by the last turn alone: none, or all


def test_without_a_holdout_the_parts_are_the_same() -> None:
    split = split_of(rows(WORDS[:3]), EvaluationSettings())
    assert split.fitting == split.reported
    assert split.reported.words == "all 3 instructions"
    assert len(reported_rows(rows(WORDS[:3]), EvaluationSettings())) == 6


@pytest.mark.parametrize("share", [0.02, 0.98])
def test_a_part_that_is_too_small_is_refused_with_numbers(share: float) -> None:
    table = rows(WORDS[:40])
    out = len(held_out(table, share))
    with pytest.raises(HoldoutError, match="fewer than 4 instructions") as error:
        split_of(table, settings(holdout=share))
    assert f"fitted on: {40 - out}, held out: {out}" in str(error.value)
    # What is cut by evaluation.max_instructions counts as it is cut.
    with pytest.raises(HoldoutError):
        split_of(table, settings(holdout=0.5, max_instructions=6))


def test_a_share_is_a_share() -> None:
    for wrong in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match="holdout"):
            settings(holdout=wrong)


# -- a study ------------------------------------------------------------------------------------

MEASURING = ("eval_set", "base_losses")
EXPERIMENTS = {
    "mixtures": ("finetuned_adapters", "eval_losses"),
    "univariate": ("univariate_adapters", "univariate_losses"),
    "validation": ("selection_samples", "selection_adapters", "selection_losses"),
    "sizes": ("size_samples", "size_adapters", "size_losses"),
}
FITTED = ("univariate_bins", "indicator_table", "quality_rule", "dolly_indicators",
          "mine_indicators")  # fmt: skip
REPORTED = ("validation_runs", "selection_validation", "noise_floor", "rule_deciles", "size_search",
            "judged_answers", "pairwise_judge", "study_report")  # fmt: skip


@pytest.fixture(scope="module")
def held(
    whole_study: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A study with 24 instructions, measured without a holdout and then reported with one."""
    home = tmp_path_factory.mktemp("held") / "home"
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        platform = Platform(copied(whole_study, home), instance)
        evaluation = [
            {"instruction": f"What is {word}?", "outputs": [f"It is {word}.", "Nobody knows."]}
            for word in WORDS[:24]
        ]
        path = Path(str(platform.study.data.evaluation.path))  # type: ignore[union-attr]
        path.write_text("".join(json.dumps(row) + "\n" for row in evaluation), encoding="utf-8")
        assert platform.materialize(*MEASURING, *EXPERIMENTS["mixtures"]).success
        assert platform.materialize(*EXPERIMENTS["univariate"]).success
        platform.change(evaluation={"holdout": 0.35}, judge={"instructions": 24})
        assert platform.materialize(*FITTED, *EXPERIMENTS["validation"]).success
        assert platform.materialize(*EXPERIMENTS["sizes"], *REPORTED).success
        yield platform


def losses_on(platform: Platform, table: str, column: str, ids: frozenset[str]) -> dict[str, float]:
    losses = platform.table(table)
    mine = losses[losses["eval_id"].isin(ids)]
    return {str(key): overall(part, "token") for key, part in mine.groupby(column)}


def test_rules_are_fitted_on_one_part_and_verdicts_are_on_the_other(held: Platform) -> None:
    split = split_of(held.table("eval_set"), held.study.evaluation)
    fitting, reported = split.fitting.eval_ids, split.reported.eval_ids
    points = held.table("indicator_table")
    for table, column in (("eval_losses", "seed"), ("univariate_losses", "bin")):
        expected = losses_on(held, table, column, fitting)
        mine = points[points["partition"].isin(expected)].set_index("partition")
        assert mine["loss"].to_dict() == pytest.approx(expected)
        assert set(mine["part"]) == {"fitting"}
        assert set(mine["instructions"]) == {len(fitting)}
    runs = held.table("validation_runs")
    expected = losses_on(held, "selection_losses", "arm", reported)
    assert runs.set_index("arm")["loss"].to_dict() == pytest.approx(expected)
    for name in ("validation_runs", "noise_floor", "selection_validation", "rule_deciles"):
        found = held.table(name)
        assert set(found["part"]) == {"held_out"}
        assert set(found["instructions"]) == {len(reported)}
        assert set(found["measured_id"]) == set(runs["measured_id"])
    verdict = held.table("selection_validation").set_index("strategy").loc["random"]
    random = runs[(runs["strategy"] == "random") & (runs["kind"] == "strategy")]
    assert verdict["loss"] == pytest.approx(random["loss"].mean())


def test_a_size_is_searched_on_one_part_and_reported_on_the_other(held: Platform) -> None:
    split = split_of(held.table("eval_set"), held.study.evaluation)
    trials = held.table("size_search")
    parts = (("search_loss", split.fitting), ("report_loss", split.reported))
    for column, part in parts:
        losses = losses_on(held, "size_losses", "size_key", part.eval_ids)
        expected = [losses[f"size-{size}-seed-000"] for size in trials["size"]]
        assert trials[column].tolist() == pytest.approx(expected)
    assert set(trials["search_instructions"]) == {len(split.fitting.eval_ids)}
    assert set(trials["instructions"]) == {len(split.reported.eval_ids)}
    assert set(trials["part"]) == {"held_out"}


def test_a_judge_is_asked_about_what_is_held_out(held: Platform) -> None:
    split = split_of(held.table("eval_set"), held.study.evaluation)
    assert set(held.table("judged_answers")["eval_id"]) == split.reported.eval_ids
    assert set(held.table("pairwise_judge")["part"]) == {"held_out"}


def test_the_report_says_on_what_each_was_measured(held: Platform) -> None:
    split = split_of(held.table("eval_set"), held.study.evaluation)
    fitting, reported = len(split.fitting.eval_ids), len(split.reported.eval_ids)
    text = (held.study.folder / "report" / "report.json").read_text(encoding="utf-8")
    sections = {name: json.dumps(part) for name, part in json.loads(text)["sections"].items()}
    for name in ("rule", "mixtures", "univariate"):
        assert f"Measured on the {fitting} instructions that rules are fitted on" in sections[name]
    for name in ("validation", "size"):
        assert f"the {reported} instructions that are held out of every fit" in sections[name]
    assert "instructions that are held out of every fit" in sections["judge"]
    assert "Checked by finetuning, on instructions that no rule was fitted on" in sections["answer"]


def test_another_share_measures_and_finetunes_nothing(
    held: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    import im_assets.experiments.evaluation as evaluation
    import im_assets.experiments.finetuning as finetuning

    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("measured or finetuned again")

    monkeypatch.setattr(evaluation, "evaluate_adapters", must_not)
    monkeypatch.setattr(finetuning, "train_group", must_not, raising=False)
    before = held.profile.read_text(encoding="utf-8")
    ids, losses = (held.table(name) for name in ("indicator_table", "eval_losses"))
    held.change(evaluation={"holdout": 0.5})
    try:
        result = held.materialize(*EXPERIMENTS["mixtures"])
        assert result.success
        pd.testing.assert_frame_equal(held.table("eval_losses"), losses)
        # The rule of the other part is told from one of this: nothing is selected by it.
        failed = held.materialize("dolly_selection").filter_events(lambda e: e.is_step_failure)
        assert "materialize indicator_table and quality_rule first" in str(failed)
        assert held.materialize("indicator_table").success
        points = held.table("indicator_table")
        assert set(points["values_id"]).isdisjoint(ids["values_id"])
        assert set(points["evaluation_id"]) == set(ids["evaluation_id"])
        held.change(evaluation={"holdout": 0.97})
        result = held.materialize("eval_set")
        [check] = [c for c in result.get_asset_check_evaluations()
                   if c.check_name == "holdout_leaves_enough"]  # fmt: skip
        assert not check.passed
        assert check.blocking
        assert "fitted on: " in str(check.description)
    finally:
        held.profile.write_text(before, encoding="utf-8")
