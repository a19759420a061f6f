"""The arms on a second evaluation set: measured as on the first, and reported beside it."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from im_assets.experiments.evaluation import overall
from im_assets.experiments.lineage import LineageError
from im_assets.planning.work import sources_of
from im_assets.validation.experiment import validation_experiment
from im_assets.validation.registering import analysis_of, differences
from im_assets.validation.second_set import runs_on
from im_resources.study import ProfileError, load_study
from tests.study import Platform, copied, write_data, write_profile

ROWS = [
    {"instruction": f"Add {i} and {i + 1}.", "output": f"The sum is {2 * i + 1}."}
    for i in range(7)
]  # fmt: skip
# A candidate holds this one, prompt and response.
LEAKED = {
    "instruction": "Tell me about food of Peru.",
    "output": "People in Peru like to cook with fresh things from the market, every single day. "
    "Number 1.",
}
VALIDATION = {"sizes": [4], "seeds": 2, "strategies": {"rule": "rule", "random": "random"}}
CHAIN = (
    "second_eval_set", "second_losses", "validation_runs", "second_validation", "study_report",
)  # fmt: skip


@pytest.fixture(scope="module")
def platform(
    whole_study: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A finished study, whose arms are then measured on a second set too."""
    home = tmp_path_factory.mktemp("second") / "home"
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        platform = Platform(copied(whole_study, home), instance)
        path = home / "data" / "second.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in [*ROWS, LEAKED]), encoding="utf-8")
        platform.change(data={"second_evaluation": {"path": str(path)}})
        assert platform.materialize(*CHAIN).success
        yield platform


def test_the_arms_are_measured_on_both_sets(platform: Platform) -> None:
    losses, runs = platform.table("second_losses"), platform.table("validation_runs")
    assert losses["eval_id"].nunique() == len(ROWS) + 1
    assert dict(zip(losses["arm"], losses["trial_id"], strict=True)) == dict(
        zip(runs["arm"], runs["trial_id"], strict=True)
    )
    found = platform.table("second_validation").set_index("strategy")
    mean = found["loss"].to_dict()
    for name in ("rule", "random"):
        keys = runs.loc[(runs["strategy"] == name) & (runs["kind"] == "strategy"), "arm"]
        own = [overall(losses[losses["arm"] == key], "token") for key in keys]
        assert mean[name] == pytest.approx(sum(own) / len(own))
    gap = mean["rule"] - mean["random"]
    assert found["difference"].to_dict()["rule"] == pytest.approx(gap)
    assert set(found["instructions"]) == {len(ROWS) + 1}
    assert set(found["rule_id"]) == set(runs["rule_id"])
    # The first is what it was.
    first = platform.table("selection_validation").set_index("strategy")
    assert first.loc["rule", "loss"] != pytest.approx(found.loc["rule", "loss"])


def test_the_report_shows_one_beside_the_other(platform: Platform) -> None:
    text = (platform.study.folder / "report" / "report.json").read_text(encoding="utf-8")
    section = json.loads(text)["sections"]["validation"]
    beginning = "On the 8 instructions of the second evaluation set, of another kind: With 4"
    assert any(text.startswith(beginning) for text in section["texts"])
    [row] = [r for r in section["tables"]["second_verdicts"]["rows"] if r["strategy"] == "rule"]
    for name, suffix in (("second_validation", ""), ("selection_validation", "_first")):
        verdict = platform.table(name).set_index("strategy").loc["rule"]
        for column in ("difference", "difference_low", "difference_high", "verdict"):
            assert row[f"{column}{suffix}"] == verdict[column]


def test_what_was_registered_names_both_sets(platform: Platform) -> None:
    study = platform.study
    sets = [platform.table(name) for name in ("eval_set", "second_eval_set")]
    one, both = analysis_of(study, sets[0]), analysis_of(study, *sets)
    assert "second evaluation set" in differences(one, both)
    assert "second evaluation set" in differences(both, analysis_of(study, sets[0], sets[1][:-1]))


def test_losses_of_other_finetunes_are_not_taken_for_these(platform: Platform) -> None:
    losses, runs = platform.table("second_losses"), platform.table("validation_runs")
    evaluation_id = losses["evaluation_id"].iloc[0]
    study = platform.study
    how = validation_experiment(study), study.evaluation
    assert len(runs_on(losses, runs, evaluation_id, *how)) == len(runs)
    arm = runs["arm"].iloc[0]
    other = losses.assign(trial_id=losses["trial_id"].mask(losses["arm"] == arm, "other"))
    for wrong, wanted in (
        (other, evaluation_id),
        (losses[losses["arm"] != arm], evaluation_id),
        (losses, "another set"),
    ):
        with pytest.raises(LineageError, match="materialize second_losses"):
            runs_on(wrong, runs, wanted, *how)


def test_nothing_of_it_may_be_trained_on(platform: Platform) -> None:
    before = platform.table("candidate_datasets")
    assert LEAKED["instruction"] in set(before["instruction"])
    assert platform.materialize("candidate_datasets").success
    assert LEAKED["instruction"] not in set(platform.table("candidate_datasets")["instruction"])
    quarantined = platform.table("quarantined_examples")
    mine = quarantined[quarantined["dataset"] == "candidate_datasets"]
    assert mine["reason"].str.contains("leaks evaluation row").any()


def test_it_is_planned_for_and_looked_for_like_the_first(platform: Platform) -> None:
    from im_assets.doctor.sources import data

    study = platform.study
    assert set(sources_of(study)) >= {"eval_set", "second_eval_set"}
    assert "7 sources" in " ".join(finding.what for finding in data(study))


def test_without_it_there_is_none_of_it(tmp_path: Path) -> None:
    profile = write_profile(tmp_path, tmp_path / "model", validation=VALIDATION)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Platform(profile, instance).definitions.resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert "selection_validation" in names
    assert not {"second_eval_set", "second_losses", "second_validation"} & names


def test_it_needs_arms_to_measure(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    data["second_evaluation"] = {"path": "b.jsonl"}
    profile = write_profile(tmp_path, tmp_path / "model", data=data)
    with pytest.raises(ProfileError, match=r"data\.second_evaluation: the arms of `validation`"):
        load_study(str(profile))
