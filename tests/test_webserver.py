"""The buttons of the Dagster UI: each does what it says, and ends in the tables of the jobs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from im_resources.study import Study, load_study
from im_resources.warehouse import Warehouse
from tests.language_model.fixtures import tiny_folder
from tests.processes import Forked
from tests.study import Platform, history, write_profile
from tests.webserver import Webserver, webserver

__all__ = ["tiny_folder"]
pytestmark = pytest.mark.slow

SEEDS = [f"seed-{number:03d}" for number in range(8)]
MIXTURES = ("mixed_samples", "finetuned_adapters", "eval_losses")
# When and where a table was made, and caches, which hold what several tables were made from.
INCIDENTAL = {"seconds", "folder"}
CACHES = {"score_cache", "embedding_cache", "eval_loss_cache", "cut_cache", "warehouse_version"}


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A demo in small, of two sets of partitions: the mixtures, and the bins of one indicator."""
    return write_profile(
        tmp_path_factory.mktemp("webserver"),
        tiny_folder,
        univariate={"indicators": ["len_out"], "bins": 4, "size": 3, "bootstrap": 20},
    )


@pytest.fixture(scope="module")
def by_jobs(profile: Path) -> dict[str, pd.DataFrame]:
    """The tables of the same jobs, run one after the other in a home of their own."""
    home = profile.parent / "by_jobs"
    with (
        pytest.MonkeyPatch.context() as patch,
        history(profile.parent / "history") as instance,
    ):
        patch.setenv("IM_HOME", str(home))
        Platform(profile, instance).run_all()
    return tables(Warehouse(home / "tiny" / "warehouse.duckdb"))


@pytest.fixture(scope="module")
def study(profile: Path) -> Iterator[Study]:
    """The study that the webserver shows, in another home, and its environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IM_HOME", str(profile.parent / "by_webserver"))
        patch.setenv("IM_PROFILE", str(profile))
        study = load_study(str(profile))
        patch.setenv("DAGSTER_STATE", str(study.history))
        data(profile.parent / "data.log")
        yield study


@pytest.fixture(scope="module")
def server(study: Study) -> Iterator[Webserver]:
    with webserver(study) as started:
        yield started


def test_a_job_for_some_seeds_says_before_it_trains_what_will_be_missing(
    server: Webserver, study: Study
) -> None:
    (run,) = server.backfill_job("study", SEEDS[:3])
    events = server.events(run)
    told = place(events, checkName="mixtures_will_be_complete")
    verdict = events[told]["evaluation"]
    assert (verdict["success"], verdict["severity"]) == (False, "WARN")
    assert "leaves out 5 of 8 mixtures" in verdict["description"]
    assert all(seed in verdict["description"] for seed in SEEDS[3:])
    assert told < place(events, "ExecutionStepStartEvent", stepKey="finetuned_adapters")
    # Said in the log too, in the same words; and the rule is not made.
    warned = [e for e in events if e["level"] == "WARNING" and "leaves out 5 of 8" in e["message"]]
    assert warned
    assert server.status(run) == "FAILURE"
    refused = events[place(events, checkName="mixtures_parts_agree")]["evaluation"]
    assert not refused["success"]
    assert all(seed in refused["description"] for seed in SEEDS[3:])
    assert "quality_rule" not in made(events)
    assert not Warehouse(study.warehouse).has_table("quality_rule")


def test_a_backfill_of_seeds_makes_these_and_nothing_else(
    server: Webserver, study: Study, by_jobs: dict[str, pd.DataFrame]
) -> None:
    (run,) = server.backfill_assets(MIXTURES, SEEDS[3:])
    events = server.events(run)
    assert server.status(run) == "SUCCESS"
    assert made(events) == set(MIXTURES)
    assert partitions_made(events) == set(SEEDS[3:])
    assert events[place(events, checkName="mixtures_will_be_complete")]["evaluation"]["success"]
    found = tables(Warehouse(study.warehouse))
    for name in MIXTURES:
        same(found[name], by_jobs[name], name)


def test_the_job_for_all_seeds_is_one_run_and_ends_in_the_same_tables(
    server: Webserver, study: Study, by_jobs: dict[str, pd.DataFrame]
) -> None:
    (run,) = server.backfill_job("study", SEEDS)
    assert server.status(run) == "SUCCESS"
    found = tables(Warehouse(study.warehouse))
    assert {"quality_rule", "rule_evidence", "dolly_selection"} <= found.keys() & by_jobs.keys()
    for name, table in found.items():
        wanted = by_jobs[name]
        if name == "token_cuts":  # of all assets that train or measure: here, of this job's
            wanted = wanted[wanted["asset"].isin(table["asset"])]
        same(table, wanted, name)


def test_materialize_all_ends_in_the_same_tables(
    server: Webserver, study: Study, by_jobs: dict[str, pd.DataFrame]
) -> None:
    forget(study)
    runs = server.materialize_all()
    assert [server.status(run) for run in runs] == ["SUCCESS"] * len(runs)
    # The data; mixtures and bins; the rule; and what waits for bins, rule or both. Which of the
    # last are one run depends on what has ended when the daemon looks. Never one a partition.
    assert len(runs) <= 7
    found = tables(Warehouse(study.warehouse))
    assert found.keys() == by_jobs.keys()
    for name, table in found.items():
        same(table, by_jobs[name], name)
    everything = set().union(*(made(server.events(run)) for run in runs))
    assert everything == set(server.assets())


def data(log: Path) -> None:
    """The job before that of the mixtures: the pools, and the seeds drawn from them."""
    assert Forked("im_assets.run", "data", log=log).wait() == 0, log.read_text(encoding="utf-8")


def forget(study: Study) -> None:
    """Take the study's results away, as if it had never run; its history stays."""
    study.warehouse.unlink()
    shutil.rmtree(study.folder / "adapters")


def tables(warehouse: Warehouse) -> dict[str, pd.DataFrame]:
    """Every result of a study, by the name of its asset; not what was left to do at some moment."""
    names = warehouse.query("SELECT table_name FROM duckdb_tables() ORDER BY table_name")
    left_out = {*CACHES, "study_plan"}
    return {n: warehouse.read_table(n) for n in names["table_name"] if n not in left_out}


def same(found: pd.DataFrame, wanted: pd.DataFrame, name: str) -> None:
    """Equal in content: whatever the order of the rows, and to the rounding of a sum."""
    pd.testing.assert_frame_equal(_sorted(found), _sorted(wanted), rtol=1e-5, obj=name)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    kept = table.drop(columns=[c for c in table if c in INCIDENTAL])
    exact = [str(c) for c in kept if not pd.api.types.is_float_dtype(kept[c])]
    return kept.sort_values(exact, ignore_index=True)


def place(events: list[dict[str, Any]], kind: str | None = None, **wanted: str) -> int:
    """Where in the log the first such event is; its fields, or those of its check, are these."""
    for number, event in enumerate(events):
        fields = {**event, **(event.get("evaluation") or {})}
        if (
            kind in (None, event["__typename"])
            and wanted.items() <= {k: v for k, v in fields.items() if isinstance(v, str)}.items()
        ):
            return number
    raise AssertionError(f"the log has no {kind or 'event'} with {wanted}")


def made(events: list[dict[str, Any]]) -> set[str]:
    """The assets that a run materialized."""
    return {e["assetKey"]["path"][-1] for e in events if e["__typename"] == "MaterializationEvent"}


def partitions_made(events: list[dict[str, Any]]) -> set[str]:
    """The partitions that a run materialized."""
    return {e["partition"] for e in events if e["__typename"] == "MaterializationEvent"}
