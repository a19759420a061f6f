"""What was registered before a loss was known, and whether what is reported is that."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_assets.validation.registering import (
    analysis_id,
    analysis_of,
    differences,
    registered,
    registration,
    written,
)
from im_resources.study import Study, load_study
from tests.study import Platform, copied, write_profile

EVAL_SET = pd.DataFrame(
    [(f"e{i}", 0, f"Ask {i}.", "", "Answer") for i in range(12)],
    columns=["eval_id", "output_index", "instruction", "input", "output"],
)
ANALYSIS = {"validation": {"seeds": 3, "sizes": [100]}, "code": {"verdicts": "1"}}
OTHER = {"validation": {"seeds": 4, "sizes": [100]}, "code": {"verdicts": "1"}}
TRIALS = ["t1", "t2", "t3"]
FIRST, SECOND = "2026-01-01 10:00 UTC", "2026-01-02 10:00 UTC"


def test_registered_before_any_loss() -> None:
    table = registered(None, ANALYSIS, (), FIRST)
    found = registration(table, ANALYSIS, analysis_id(ANALYSIS), TRIALS)
    assert (found.outcome, found.there, found.losses) == ("before", 0, 3)
    key = analysis_id(ANALYSIS)
    assert found.words == (
        f"This analysis was registered before any of these losses was measured, on {FIRST} ({key})."
    )


def test_losses_of_other_finetunes_do_not_count() -> None:
    table = registered(None, ANALYSIS, ["of an earlier rule"], FIRST)
    assert table["losses_there"].tolist() == [1]
    assert registration(table, ANALYSIS, analysis_id(ANALYSIS), TRIALS).outcome == "before"


def test_registered_late() -> None:
    table = registered(None, ANALYSIS, ["t1", "t3", "another"], FIRST)
    found = registration(table, ANALYSIS, analysis_id(ANALYSIS), TRIALS)
    assert (found.outcome, found.there) == ("late", 2)
    assert "registered after 2 of 3 losses were there, on" in found.words


def test_not_what_was_registered() -> None:
    table = registered(None, ANALYSIS, (), FIRST)
    found = registration(table, OTHER, analysis_id(OTHER), TRIALS)
    assert found.outcome == "changed"
    assert found.differs == ("validation.seeds",)
    assert "This is not what was registered on" in found.words
    assert "it differs in validation.seeds." in found.words


def test_registering_again_with_other_settings_is_told_as_what_it_is() -> None:
    """The first one stands, and the second does not pass for it."""
    first = registered(None, ANALYSIS, (), FIRST)
    both = registered(first, OTHER, TRIALS, SECOND)
    pd.testing.assert_frame_equal(both[:1], first)
    assert both["registered_at"].tolist() == [FIRST, SECOND]
    found = registration(both, OTHER, analysis_id(OTHER), TRIALS)
    assert (found.outcome, found.there, found.differs) == ("late", 3, ("validation.seeds",))
    assert f"The one registered before it, on {FIRST}, differs in validation.seeds." in found.words
    assert "2 analyses were registered in all" in found.words
    # And back: the first was there before the losses, whatever was registered since.
    assert registration(both, ANALYSIS, analysis_id(ANALYSIS), TRIALS).outcome == "before"


def test_the_same_analysis_keeps_its_first_time() -> None:
    first = registered(None, ANALYSIS, (), FIRST)
    again = registered(first, ANALYSIS, TRIALS, SECOND)
    pd.testing.assert_frame_equal(again, first)


def test_verdicts_of_another_analysis_than_the_profiles_are_not_compared() -> None:
    table = registered(None, ANALYSIS, (), FIRST)
    found = registration(table, ANALYSIS, analysis_id(OTHER), TRIALS)
    assert found.outcome == "other_settings"
    assert registration(None, ANALYSIS, analysis_id(ANALYSIS), TRIALS).outcome == "never"


def test_differences_are_named_by_their_settings() -> None:
    one = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}
    assert differences(one, {"a": {"b": {"c": 2}, "d": [1, 2]}, "e": {"f": 1}}) == ["a.b.c", "e"]
    assert differences(one, json.loads(written(one))) == []


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def loaded(**changes: Any) -> Study:
        blocks = {"validation": {"sizes": [4], "seeds": 2}, **changes}
        return load_study(str(write_profile(tmp_path, tmp_path / "model", **blocks)))

    return loaded


@pytest.mark.parametrize(
    ("block", "setting", "value"),
    [
        ("validation", "sizes", [5]),
        ("validation", "seeds", 3),
        ("validation", "noise_repeats", 4),
        ("validation", "deciles", 5),
        ("rule", "p_enter", 0.5),
        ("evaluation", "holdout", 0.4),
        ("evaluation", "max_instructions", 7),
        ("mixtures", "seeds", 9),
        ("finetuning", "learning_rate", 1e-3),
        ("selection", "near_duplicate_similarity", 0.8),
    ],
)
def test_what_decides_the_outcome_is_part_of_it(
    load: Any, block: str, setting: str, value: Any
) -> None:
    validation = {"sizes": [4], "seeds": 2}
    before = analysis_of(load(), EVAL_SET)
    settings = {**validation, setting: value} if block == "validation" else {setting: value}
    changed = analysis_of(load(**{block: settings}), EVAL_SET)
    assert analysis_id(changed) != analysis_id(before)
    assert f"{block}.{setting}" in differences(before, changed)


def test_what_decides_nothing_is_not_part_of_it(load: Any) -> None:
    before = analysis_of(load(), EVAL_SET)
    for block, settings in (
        ("evaluation", {"tokens_per_batch": 512}),
        ("finetuning", {"checkpoint_minutes": 3}),
        ("mixtures", {"candidate_seeds": 50}),
    ):
        assert analysis_of(load(**{block: settings}), EVAL_SET) == before
    assert analysis_of(load(), EVAL_SET[:-1]) != before


# -- a study ------------------------------------------------------------------------------------

CHAIN = ("selection_samples", "registered_analysis", "selection_adapters", "selection_losses")
REPORTED = ("validation_runs", "selection_validation", "study_report")


@pytest.fixture
def own(
    whole_study: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """A finished study with a validation, to do something to."""
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(copied(whole_study, tmp_path / "home"), instance)


def said(platform: Platform) -> tuple[str, str]:
    """What the report says of the registration: the outcome, and the sentence."""
    text = (platform.study.folder / "report" / "report.json").read_text(encoding="utf-8")
    section = json.loads(text)["sections"]["validation"]
    sentences = [line for line in section["texts"] if "regist" in line]
    return section["facts"]["registration"]["value"], " ".join(sentences)


def forget(platform: Platform, *tables: str) -> None:
    for table in tables:
        platform.warehouse.execute(f'DROP TABLE "{table}"')


def test_losses_of_a_search_for_a_size_are_counted_and_are_not_these(own: Platform) -> None:
    """They were measured before, on selections too, but on others than the arms are."""
    sizes, runs = own.table("size_adapters"), own.table("validation_runs")
    found = own.table("registered_analysis")
    assert found["losses_there"].tolist() == [len(sizes)]
    assert set(json.loads(found["trials_there"].iloc[0])).isdisjoint(runs["trial_id"])
    assert said(own)[0] == "before its losses"


def test_a_study_registers_before_it_measures_and_keeps_that(own: Platform) -> None:
    forget(own, "registered_analysis", "selection_losses", "size_losses", "eval_loss_cache")
    assert own.materialize(*CHAIN, *REPORTED).success
    first = own.table("registered_analysis")
    assert first["losses_there"].tolist() == [0]
    outcome, sentence = said(own)
    assert outcome == "before its losses"
    assert "registered before any of these losses was measured" in sentence
    # A run that is started again registers nothing anew.
    assert own.materialize("registered_analysis").success
    pd.testing.assert_frame_equal(own.table("registered_analysis"), first)

    # Looked at, and then another mean is wanted: told, in the tables and the report.
    own.change(evaluation={"weighting": "instruction"})
    assert own.materialize("study_report").success
    assert said(own)[0] == "not comparable"
    assert own.materialize(*REPORTED).success
    outcome, sentence = said(own)
    assert outcome == "another analysis"
    assert "it differs in evaluation.weighting" in sentence

    # Registered only then: after the losses that are there.
    assert own.materialize("registered_analysis", "study_report").success
    table = own.table("registered_analysis")
    assert len(table) == 2
    pd.testing.assert_frame_equal(table[:1], first)
    outcome, sentence = said(own)
    there, losses = (table["losses_there"].iloc[1], own.table("validation_runs")["trial_id"])
    assert outcome == "after some losses"
    assert there > 0
    measured = len(set(json.loads(table["trials_there"].iloc[1])) & set(losses))
    assert f"after {measured} of {losses.nunique()} losses were there" in sentence
    assert "differs in evaluation.weighting" in sentence


def test_losses_that_a_killed_run_left_behind_count(own: Platform) -> None:
    """A run that ended before it wrote its table has measured all the same: they are cached."""
    forget(own, "registered_analysis", "selection_losses", "size_losses")
    assert own.materialize("registered_analysis").success
    trials = own.table("selection_adapters")["trial_id"]
    found = own.table("registered_analysis")
    assert set(json.loads(found["trials_there"].iloc[0])) >= set(trials)
