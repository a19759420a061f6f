"""A rule is never fitted on mixtures that are not the ones that were trained and measured.

Each test does what a user may do to a finished study, materializes the table and the rule, and
looks for the check that says which seeds' parts disagree and what to materialize.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.experiments.experiment import Experiment
from im_assets.experiments.finetuning import finetunes
from im_assets.experiments.lineage import Expected, LineageError, faults_of, set_id_of, told
from im_assets.mixtures.experiment import mixture_experiment
from im_resources.study import load_study
from tests.study import Platform, copied, write_profile

CHECK = "mixtures_parts_agree"
SOME = ["seed-000", "seed-001", "seed-002"]
ALL = [f"seed-{seed:03d}" for seed in range(6)]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[Path, Path]]:
    """The home and the profile of a study that has run."""
    home = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        profile = write_profile(home, tiny_folder, mixtures={"seeds": 6})
        assert Platform(profile, instance).run_study().success
        yield home, profile


@pytest.fixture
def platform(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """The finished study, to do something to."""
    own = copied(finished, tmp_path / "home")
    monkeypatch.setenv("IM_HOME", str(own.parent))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(own, instance)


def table_and_rule(platform: Platform) -> tuple[bool, str, dict[str, str]]:
    """Materialize both: whether the check passed, its words, and the faults by seed."""
    before = (platform.study.folder / "quality_rule.json").read_bytes()
    result = platform.materialize("indicator_table", "quality_rule")
    [check] = [c for c in result.get_asset_check_evaluations() if c.check_name == CHECK]
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()
            if event.asset_key}  # fmt: skip
    assert ("quality_rule" in made) == check.passed
    if not check.passed:
        assert (platform.study.folder / "quality_rule.json").read_bytes() == before
        # Nor does the rule alone, asked for afterwards, take what is left.
        assert not platform.materialize("quality_rule").success
    faults = check.metadata["faults"].value
    assert isinstance(faults, dict)
    return check.passed, str(check.description), {str(k): str(v) for k, v in faults.items()}


def test_nothing_done_nothing_disagrees(platform: Platform) -> None:
    assert table_and_rule(platform) == (True, "all 6 mixtures", {})


def test_mixtures_redrawn_without_training(platform: Platform) -> None:
    platform.change(mixtures={"size": 5})
    assert platform.materialize("mixed_samples").success
    passed, words, faults = table_and_rule(platform)
    assert not passed
    assert faults == dict.fromkeys(ALL, "another set")
    assert "materialize finetuned_adapters" in words


def test_some_seeds_of_another_size(platform: Platform) -> None:
    platform.change(mixtures={"size": 5})
    names = ("mixed_samples", "finetuned_adapters", "eval_losses")
    assert platform.materialize(*names, keys=SOME).success
    passed, words, faults = table_and_rule(platform)
    assert not passed
    assert faults == dict.fromkeys(ALL[3:], "drawn otherwise")
    assert "been drawn with other settings" in words
    assert "materialize mixed_samples" in words
    assert platform.materialize(*names, "example_scores", keys=ALL[3:]).success
    assert table_and_rule(platform)[0]


def test_finetunes_of_another_precision_are_not_measured(platform: Platform) -> None:
    """Nor do losses of a finetune in fp32, measured in bf16, become a point."""
    platform.warehouse.execute("DROP TABLE eval_loss_cache")
    platform.change(models={"precision": "bf16"})
    passed, _, faults = table_and_rule(platform)
    assert not passed
    assert faults == dict.fromkeys(ALL, "another base")
    result = platform.materialize("eval_losses", keys=SOME)
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "in another precision (fp32)" in str(failure.step_failure_data.error)


def test_a_table_made_again_is_the_same_to_the_last_digit(platform: Platform) -> None:
    """The rule's fingerprint is of its coefficients: verdicts must not become an earlier rule's."""
    ids = set()
    for _ in range(3):
        assert platform.materialize("indicator_table", "quality_rule").success
        ids |= set(platform.table("quality_rule")["rule_id"])
    assert len(ids) == 1


def test_evidence_and_report_of_a_rule_that_was_fitted_on_other_points(platform: Platform) -> None:
    assert platform.materialize("rule_evidence", "study_report").success
    platform.change(mixtures={"seeds": 5})
    assert platform.materialize("indicator_table").success
    result = platform.materialize("rule_evidence")
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "fitted on other points" in str(failure.step_failure_data.error)
    assert platform.materialize("study_report").success
    report = json.loads((platform.study.folder / "report/report.json").read_text(encoding="utf-8"))
    assert any("fitted on other points" in t for t in report["sections"]["rule"]["texts"])
    assert "From 5" not in report["sections"]["answer"]["texts"][0]
    platform.change(rule={"max_indicators": 1})
    assert platform.materialize("quality_rule", "rule_evidence", "study_report").success
    report = json.loads((platform.study.folder / "report/report.json").read_text(encoding="utf-8"))
    assert not any("fitted on other points" in t for t in report["sections"]["rule"]["texts"])


def test_some_seeds_trained_with_another_learning_rate(platform: Platform) -> None:
    platform.change(finetuning={"learning_rate": 5e-3})
    assert platform.materialize("finetuned_adapters", "eval_losses", keys=SOME).success
    passed, words, faults = table_and_rule(platform)
    assert not passed
    assert faults == dict.fromkeys(ALL[3:], "other settings")
    assert "seed-003, seed-004, seed-005" in words
    assert platform.materialize("finetuned_adapters", "eval_losses", keys=ALL[3:]).success
    assert table_and_rule(platform)[0]


def test_a_learning_rate_that_no_seed_was_trained_with(platform: Platform) -> None:
    platform.change(finetuning={"learning_rate": 5e-3})
    # The rule alone would be fitted on the table of before, and be taken for the profile's.
    result = platform.materialize("quality_rule")
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "other settings than the profile's" in str(failure.step_failure_data.error)
    passed, _, faults = table_and_rule(platform)
    assert not passed
    assert faults == dict.fromkeys(ALL, "other settings")


def test_losses_of_other_settings_are_told_before_training(platform: Platform) -> None:
    platform.change(finetuning={"learning_rate": 5e-3})
    names = ("mixed_samples", "finetuned_adapters", "eval_losses")
    for keys, left in ((SOME, 3), (ALL[3:], 0)):
        result = platform.materialize(*names, keys=keys)
        [told_] = [
            c for c in result.get_asset_check_evaluations()
            if c.check_name == "mixtures_will_be_complete"
        ]  # fmt: skip
        assert told_.passed == (left == 0)
        assert told_.metadata["left out"].value == left


def test_adapters_that_were_not_evaluated_again(platform: Platform) -> None:
    platform.change(finetuning={"learning_rate": 5e-3})
    assert platform.materialize("finetuned_adapters").success
    passed, words, faults = table_and_rule(platform)
    assert not passed
    assert faults == dict.fromkeys(ALL, "another finetune")
    assert "materialize eval_losses" in words


def test_a_source_that_was_withdrawn(platform: Platform) -> None:
    data = platform.study.model_dump(mode="json", exclude_none=True)["data"]
    del data["candidates"]["weather"]
    platform.change(data={"candidates": data["candidates"]})
    assert platform.materialize("candidate_datasets").success
    held = platform.table("candidate_datasets")["example_id"]
    samples = platform.table("mixed_samples")
    hit = set(samples.loc[~samples["example_id"].isin(held), "seed"])
    assert hit
    passed, words, faults = table_and_rule(platform)
    assert not passed
    assert faults == dict.fromkeys(sorted(hit), "withdrawn examples")
    assert "materialize mixture_seeds" in words  # which retires them
    # And no finetune quietly takes the smaller set.
    result = platform.materialize("finetuned_adapters", keys=sorted(hit)[:1])
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "no longer in candidate_datasets" in str(failure.step_failure_data.error)


def test_another_evaluation_set(platform: Platform) -> None:
    assert platform.study.data.evaluation is not None
    path = Path(str(platform.study.data.evaluation.path))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0]["outputs"][0] = "Something else altogether."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert platform.materialize("eval_set", "base_losses").success
    assert platform.materialize("eval_losses", keys=SOME).success
    passed, words, faults = table_and_rule(platform)
    assert not passed
    assert faults == dict.fromkeys(ALL[3:], "another evaluation set")
    assert "materialize eval_losses" in words


def test_scores_of_an_earlier_version_of_an_indicator(platform: Platform) -> None:
    platform.change(models={"max_length": 40})  # perplexity reads cut texts
    assert platform.materialize("finetuned_adapters", "eval_losses").success
    result = platform.materialize("indicator_table")
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "ppl is not scored, or was scored by another version" in str(
        failure.step_failure_data.error
    )


def test_a_pool_is_not_ranked_by_a_rule_of_other_indicators(platform: Platform) -> None:
    platform.change(models={"max_length": 40})  # perplexity reads cut texts
    for names, words in (
        (("dolly_selection",), "another version than the profile's"),
        (("dolly_scores", "dolly_selection"), "another version than the profile's"),
        (("dolly_indicators", "dolly_selection"), "another version than the profile's"),
    ):
        result = platform.materialize(*names)
        [failure] = result.filter_events(lambda event: event.is_step_failure)
        assert words in str(failure.step_failure_data.error)


def test_a_trial_that_two_seeds_ask_for_is_trained_once(platform: Platform) -> None:
    adapters = platform.table("finetuned_adapters")
    folders = [p for p in (platform.study.folder / "adapters").iterdir() if p.is_dir()]
    assert sorted(p.name for p in folders) == sorted(adapters["trial_id"])
    before = {p.name: p.stat().st_mtime_ns for p in folders}
    assert platform.materialize("mixed_samples", "finetuned_adapters").success
    assert {p.name: p.stat().st_mtime_ns for p in folders} == before


# -- the comparison by itself -------------------------------------------------------------------

EXPECTED = Expected(
    "settings", {"fp32": "base"}, "evaluation", frozenset({"a", "b", "c"}), drawing_id="drawing"
)


def parts(keys: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of an experiment in which all agrees."""
    samples = pd.DataFrame(
        [(key, place, e, f"set-{key}", "drawing") for key in keys for place, e in enumerate("abc")],
        columns=["seed", "position", "example_id", "set_id", "drawing_id"],
    )
    adapters = pd.DataFrame(
        [(k, f"set-{k}", "settings", "base", "fp32", f"trial-{k}") for k in keys],
        columns=["seed", "set_id", "settings_id", "base_id", "precision", "trial_id"],
    )
    losses = pd.DataFrame(
        [(k, f"e{i}", f"set-{k}", f"trial-{k}", "evaluation") for k in keys for i in range(2)],
        columns=["seed", "eval_id", "set_id", "trial_id", "evaluation_id"],
    )
    return samples, adapters, losses


def experiment() -> Experiment:
    study = load_study("demo")
    mixtures = study.mixtures.model_copy(update={"seeds": 5})
    return mixture_experiment(study.model_copy(update={"mixtures": mixtures}))


@given(st.data())
def test_whatever_is_changed_in_one_partition_is_told_of_that_one(data: st.DataObject) -> None:
    mine = experiment()
    samples, adapters, losses = parts(list(mine.keys))
    assert not faults_of(mine, samples, adapters, losses, EXPECTED)
    key = data.draw(st.sampled_from(mine.keys))
    name, frame = data.draw(
        st.sampled_from([("samples", samples), ("adapters", adapters), ("losses", losses)])
    )
    columns = [str(c) for c in frame]
    column = data.draw(
        st.sampled_from([c for c in columns if c.endswith("_id") and c != "eval_id"])
    )
    rows = frame["seed"] == key
    change: Callable[[pd.DataFrame], pd.DataFrame] = data.draw(
        st.sampled_from([lambda f: f[~rows], lambda f: f.assign(
            **{column: f[column].where(~rows, "other")})])
    )  # fmt: skip
    changed = {"samples": samples, "adapters": adapters, "losses": losses} | {name: change(frame)}
    faults = faults_of(mine, changed["samples"], changed["adapters"], changed["losses"], EXPECTED)
    assert [fault.partition for fault in faults] == [key]
    [line] = told(faults, len(mine.keys))
    assert key in line
    assert faults[0].asset in line


def test_mixed_precisions_are_told_of_the_rarer() -> None:
    mine = experiment()
    samples, adapters, losses = parts(list(mine.keys))
    adapters.loc[1, ["precision", "base_id"]] = ["bf16", "base-bf16"]
    both = Expected("settings", {"fp32": "base", "bf16": "base-bf16"}, "evaluation",
                    EXPECTED.examples)  # fmt: skip
    [fault] = faults_of(mine, samples, adapters, losses, both)
    assert (fault.partition, fault.kind) == (mine.keys[1], "another base")
    # Where the profile names a precision, that is the right one, however rare.
    found = faults_of(mine, samples, adapters, losses, replace(both, precision="bf16"))
    assert [fault.partition for fault in found] == [k for k in mine.keys if k != mine.keys[1]]


def test_verdicts_of_two_judges_are_told_apart() -> None:
    mine = experiment()
    keys = list(mine.keys)
    answers = pd.DataFrame(
        [(k, f"set-{k}", f"trial-{k}", "asked") for k in keys],
        columns=["seed", "set_id", "trial_id", "instructions_id"],
    )
    verdicts = answers.assign(judge_id=["a judge", *["the judge"] * (len(keys) - 1)])
    expected = replace(EXPECTED, instructions_id="asked", judges=frozenset({"the judge"}))
    more = {"answers": answers, "verdicts": verdicts}
    [fault] = faults_of(mine, *parts(keys), expected, more)
    assert (fault.partition, fault.kind) == (keys[0], "verdicts of another judge")
    [line] = told([fault], len(keys))
    assert f"have verdicts of another judge: {keys[0]}; materialize mixture_verdicts" in line


def test_a_table_without_fingerprints_says_what_to_do() -> None:
    samples, adapters, losses = parts(["seed-000"])
    with pytest.raises(LineageError, match=r"earlier version.*materialize it again"):
        faults_of(experiment(), samples.drop(columns="set_id"), adapters, losses, EXPECTED)


def test_a_set_is_its_examples_in_order() -> None:
    assert set_id_of(["a", "b"]) == set_id_of(("a", "b"))
    assert len({set_id_of(ids) for ids in (["a", "b"], ["b", "a"], ["a"], ["ab"], [])}) == 5


def test_a_set_with_a_vanished_or_changed_member_is_not_trained_on() -> None:
    samples, _, _ = parts(["seed-000"])
    pool = pd.DataFrame({"example_id": list("abc"), "instruction": "i", "input": "", "output": "o"})
    samples["set_id"] = set_id_of("abc")
    [finetune] = finetunes(samples, pool, experiment()).values()
    assert finetune.examples["example_id"].tolist() == list("abc")
    with pytest.raises(LineageError, match=r"1 of its 3 examples are no longer.*\(b\)"):
        finetunes(samples, pool[pool["example_id"] != "b"], experiment())
    with pytest.raises(LineageError, match="not the set that was drawn"):
        finetunes(samples.assign(set_id="another"), pool, experiment())
