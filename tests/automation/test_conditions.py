"""What follows a change by itself, and what does not: ticks on a whole study in small."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from im_assets.automation.conditions import last_parents
from im_assets.common.partitions import range_tags
from im_assets.definitions import definitions
from im_resources.study import load_study
from tests.automation.ticks import Ticks
from tests.study import Platform, copied, history, valleys, write_profile
from tests.whole_study import write_whole_profile

MIXTURES = ("mixed_samples", "finetuned_adapters", "eval_losses")
SEEDS = [f"seed-{number:03d}" for number in range(8)]
AFTER_THE_POINTS = {
    "quality_rule", "rule_evidence", "source_shares", "dolly_indicators", "dolly_selection",
    "study_report",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[Path, Path]]:
    """The home of a study that has run, with its history, and the profile."""
    home = tmp_path_factory.mktemp("conditions")
    with (
        pytest.MonkeyPatch.context() as patch,
        history(home / "history") as instance,
    ):
        patch.setenv("IM_HOME", str(home))
        profile = write_profile(home, tiny_folder, refit={"new_seeds": 2}, automation=True)
        platform = Platform(profile, instance)
        assert platform.run_study().success
        assert platform.run("reporting").success
        yield home, profile


@pytest.fixture
def platform(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """The finished study, to do something to."""
    profile = copied(finished, tmp_path / "home")
    monkeypatch.setenv("IM_HOME", str(profile.parent))
    with history(profile.parent / "history") as instance:
        yield Platform(profile, instance)


@pytest.fixture
def ticks(platform: Platform) -> Ticks:
    """The sensor, just switched on."""
    ticks = Ticks(platform)
    assert ticks.tick() == set()
    return ticks


def new_rows(platform: Platform, source: str = "food") -> set[str]:
    """A new version of the pool; its new seeds, which nothing is finetuned on yet."""
    path = Path(str(platform.study.data.candidates[source].path))
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in valleys(6))
    assert platform.run("data").success
    seeds = platform.table("mixture_seeds")
    return set(seeds.loc[seeds["refit"], "seed"])


def points_fitted(platform: Platform) -> int:
    return int(platform.table("quality_rule")["n"].iloc[0])


def test_tables_written_again_with_the_same_rows_are_no_change(
    platform: Platform, ticks: Ticks
) -> None:
    assert platform.materialize(*MIXTURES).success
    assert ticks.tick() == set()
    assert platform.materialize("example_scores", "dolly_scores", "indicator_table").success
    assert ticks.tick() == set()


def test_a_backfill_is_followed_when_no_mixture_lacks_losses(
    platform: Platform, ticks: Ticks
) -> None:
    first, second = sorted(new_rows(platform))
    assert ticks.tick() == set()
    assert platform.materialize(*MIXTURES, keys=[first]).success
    assert ticks.tick() == set()
    assert platform.materialize(*MIXTURES, keys=[second]).success
    assert platform.materialize("example_scores").success
    assert ticks.follow() == [{"indicator_table"}, AFTER_THE_POINTS]
    assert points_fitted(platform) == len(SEEDS) + 2
    assert set(platform.table("dolly_selection")["rule_id"]) == set(
        platform.table("quality_rule")["rule_id"]
    )


def test_a_refit_leaves_only_the_report(platform: Platform, ticks: Ticks) -> None:
    new_rows(platform)
    assert platform.run("study").success
    assert ticks.follow() == [{"study_report"}]


def test_nothing_is_made_twice_while_a_refit_goes_on(platform: Platform, ticks: Ticks) -> None:
    new = new_rows(platform)
    job = platform.definitions.resolve_job_def("study")
    seeds = [*SEEDS, *sorted(new)]
    refit = platform.instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.STARTED,
        tags=range_tags(seeds),
    )
    assert platform.materialize(*MIXTURES, "example_scores", keys=seeds).success
    assert ticks.tick() == set()
    platform.instance.report_run_canceled(refit)
    assert ticks.follow() == [{"indicator_table"}, AFTER_THE_POINTS]


def test_a_failed_check_blocks_what_follows_until_it_passes(
    platform: Platform, ticks: Ticks
) -> None:
    before = platform.table("quality_rule")
    platform.change(finetuning={"learning_rate": 1e-3})
    assert platform.materialize(*MIXTURES, keys=SEEDS[:1]).success
    assert ticks.tick() == {"indicator_table"}
    assert not ticks.start({"indicator_table"}).success  # an alert, and red in the UI
    check = dg.AssetCheckKey(dg.AssetKey("indicator_table"), "mixtures_parts_agree")
    (seen,) = platform.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    assert seen.evaluation is not None
    assert not seen.evaluation.passed
    assert SEEDS[1] in str(seen.evaluation.description)
    assert [ticks.tick() for _ in range(3)] == [set()] * 3
    assert platform.table("quality_rule").equals(before)
    assert platform.materialize(*MIXTURES, keys=SEEDS[1:]).success
    assert ticks.follow() == [{"indicator_table"}, AFTER_THE_POINTS]
    assert not platform.table("quality_rule").equals(before)


def test_what_changes_while_its_run_goes_on_is_not_lost(platform: Platform, ticks: Ticks) -> None:
    """Between two ticks a run reads the losses of some mixtures, and those of others change."""
    platform.change(finetuning={"learning_rate": 1e-3})
    assert platform.materialize(*MIXTURES, keys=SEEDS[:4]).success
    assert ticks.tick() == {"indicator_table"}
    ticks.start({"indicator_table"})
    assert platform.materialize(*MIXTURES, keys=SEEDS[4:]).success
    assert ticks.follow() == [{"indicator_table"}, AFTER_THE_POINTS]
    assert points_fitted(platform) == len(SEEDS)


def test_a_run_that_failed_is_not_tried_for_ever(platform: Platform, ticks: Ticks) -> None:
    new = new_rows(platform)
    assert platform.materialize(*MIXTURES, "example_scores", keys=sorted(new)).success
    assert ticks.tick() == {"indicator_table"}
    assert ticks.start({"indicator_table"}).success
    platform.change(mixtures={"seeds": 30})  # too few of these have losses for any rule
    assert ticks.tick() == AFTER_THE_POINTS
    assert not ticks.start(AFTER_THE_POINTS).success
    assert [ticks.tick() for _ in range(3)] == [set()] * 3


def test_new_scores_of_an_unseen_pool_lead_to_a_selection_of_the_same_rule(
    platform: Platform, ticks: Ticks
) -> None:
    unseen = Path(str(platform.study.data.unseen["dolly"].path))
    row = {"instruction": "Why one more?", "context": "", "response": "Because it landed."}
    with unseen.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    assert platform.run("data").success
    assert ticks.tick() == set()
    assert platform.materialize("dolly_scores").success
    assert ticks.follow() == [{"dolly_indicators", "dolly_selection", "study_report"}]


def test_what_was_never_made_is_made_as_soon_as_it_can_be(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(write_profile(tmp_path, tiny_folder), instance)
        from_the_start = Ticks(platform)
        assert from_the_start.tick() == set()
        assert platform.run("data").success
        assert platform.materialize("base_losses", "example_scores", "dolly_scores").success
        assert platform.materialize(*MIXTURES, keys=SEEDS[:5]).success
        assert from_the_start.tick() == set()
        assert platform.materialize(*MIXTURES, keys=SEEDS[5:]).success
        assert from_the_start.tick() == {"indicator_table"}
        switched_on_now = Ticks(platform)
        assert switched_on_now.follow() == [{"indicator_table"}, AFTER_THE_POINTS]


@pytest.mark.parametrize("automation", [False, True])
def test_the_setting_switches_everything_that_ticks(
    automation: bool, tmp_path: Path, tiny_folder: Path
) -> None:
    profile = write_profile(tmp_path, tiny_folder, automation=automation)
    text = profile.read_text(encoding="utf-8")
    wanted = "on" if automation else "off"
    profile.write_text(
        text.replace(f"automation: {str(automation).lower()}", f"automation: {wanted}")
    )
    repository = definitions(load_study(str(profile)), str(profile)).get_repository_def()
    # Dead runs are looked for always: they would block every later one.
    sensors = [sensor for sensor in repository.sensor_defs if sensor.name != "dead_runs"]
    schedules = list(repository.schedule_defs)
    assert "automation_sensor" in {sensor.name for sensor in sensors}
    status = "RUNNING" if automation else "STOPPED"
    assert {sensor.default_status.value for sensor in sensors} == {status}
    assert {schedule.default_status.value for schedule in schedules} <= {status}
    assert all(len(sensor.description or "") > 20 for sensor in sensors)
    assert all(len(schedule.description or "") > 20 for schedule in schedules)


def test_rule_and_selections_are_overdue_after_some_days(tmp_path: Path, tiny_folder: Path) -> None:
    def policies(**blocks: Any) -> dict[str, dg.FreshnessPolicy]:
        profile = str(write_profile(tmp_path, tiny_folder, **blocks))
        graph = definitions(load_study(profile), profile).resolve_asset_graph()
        found = {
            k.to_user_string(): graph.get(k).freshness_policy
            for k in graph.materializable_asset_keys
        }
        return {name: policy for name, policy in found.items() if policy is not None}

    assert policies() == {}
    found = policies(automation=True, refit={"fresh_days": 10})
    wanted = dg.FreshnessPolicy.time_window(timedelta(days=10), warn_window=timedelta(days=9))
    assert found == {"quality_rule": wanted, "dolly_selection": wanted}


def test_nothing_that_costs_follows_by_itself(tmp_path: Path) -> None:
    """Of a study with every part: bins, a validation, a searched size, a judge."""
    profile = str(write_whole_profile(tmp_path))
    graph = definitions(load_study(profile), profile).resolve_asset_graph()
    automatic = {k for k in graph.get_all_asset_keys() if graph.get(k).automation_condition}
    names = {key.to_user_string() for key in automatic}
    assert {"indicator_table", *AFTER_THE_POINTS, "selection_validation"} <= names
    for key in automatic:
        assert graph.get(key).partitions_def is None
        assert not graph.get(key).pools
    assert not names & {"pairwise_judge", "judged_answers", "base_losses", "example_scores"}


def test_what_is_made_by_itself_is_checked(tmp_path: Path) -> None:
    """A run of the automation has all checks: see the condition of rule_still_holds."""
    profile = str(write_whole_profile(tmp_path))
    made = definitions(load_study(profile), profile).assets or ()
    for asset in made:
        assert isinstance(asset, dg.AssetsDefinition)
        if any(spec.automation_condition for spec in asset.specs):
            assert all(check.automation_condition for check in asset.check_specs)


def test_a_searched_size_comes_before_the_selection(tmp_path: Path, tiny_folder: Path) -> None:
    profile = write_profile(tmp_path, tiny_folder, selection={"size": "searched"})
    made = definitions(load_study(str(profile)), str(profile)).assets or ()
    specs = {
        s.key: s for asset in made if isinstance(asset, dg.AssetsDefinition) for s in asset.specs
    }
    assert last_parents(specs)[dg.AssetKey("dolly_selection")] == {dg.AssetKey("size_search")}
