"""The automation for real: the UI and its daemon are up, and one seed is backfilled."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from im_assets.automation.conditions import NAME, TAGS
from im_resources.study import PROJECT_ROOT, Study, load_study
from im_resources.warehouse import Warehouse
from tests.study import Platform, valleys, write_profile
from tests.webserver import Webserver, wait_until, webserver

pytestmark = pytest.mark.slow

NEVER = "0 0 29 2 *"  # no refit in between: this is about what a backfill leads to
MIXTURES = ("mixed_samples", "finetuned_adapters", "eval_losses")
TICKS = """query($repository: RepositorySelector!) {
  sensorsOrError(repositorySelector: $repository) {
    ... on Sensors { results { name sensorState { status ticks { id status } } } }
  }
}"""
RUNS = """query($tags: [ExecutionTag!]) {
  runsOrError(filter: {tags: $tags}) {
    ... on Runs { results { id status assetSelection { path } } }
  }
}"""
FRESHNESS = """{ assetNodes { assetKey { path } freshnessStatusInfo { freshnessStatus } } }"""


@pytest.fixture
def study(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study that has run, whose pool has grown, and whose new seed is not finetuned on yet."""
    profile = write_profile(
        tmp_path, tiny_folder, automation=True, refit={"new_seeds": 1, "cron": NEVER}
    )
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IM_PROFILE", str(profile))
    study = load_study(str(profile))
    monkeypatch.setenv("DAGSTER_STATE", str(study.history))
    monkeypatch.setenv("DAGSTER_HOME", str(PROJECT_ROOT))
    study.history.mkdir(parents=True)
    with dg.DagsterInstance.get() as instance:
        platform = Platform(profile, instance)
        assert platform.run_study().success
        assert platform.run("reporting").success
        grow(study)
        assert platform.run("data").success
        assert platform.materialize("example_scores").success
    return study


def grow(study: Study) -> None:
    """New rows for the pool's next version."""
    with Path(str(study.data.candidates["food"].path)).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in valleys(6))


def ticks(server: Webserver) -> int:
    """How often the sensor has ticked."""
    found = server.ask(TICKS, repository=server.location())["sensorsOrError"]["results"]
    (state,) = [sensor["sensorState"] for sensor in found if sensor["name"] == NAME]
    assert state["status"] == "RUNNING"
    return len([tick for tick in state["ticks"] if tick["status"] in ("SUCCESS", "SKIPPED")])


def started(server: Webserver) -> list[dict[str, Any]]:
    """The sensor's runs, the first one first."""
    tags = [{"key": key, "value": value} for key, value in TAGS.items()]
    runs: list[dict[str, Any]] = server.ask(RUNS, tags=tags)["runsOrError"]["results"]
    return runs[::-1]


def test_a_backfill_of_the_new_seed_ends_in_a_new_rule_and_report(study: Study) -> None:
    def fitted() -> int:
        return int(Warehouse(study.warehouse).read_table("quality_rule")["n"].iloc[0])

    assert fitted() == 8
    seeds = Warehouse(study.warehouse).read_table("mixture_seeds")
    new = sorted(seeds.loc[seeds["refit"], "seed"])
    with webserver(study) as server:
        wait_until(lambda: ticks(server) >= 1)  # what was there before is no change
        (run,) = server.backfill_assets(MIXTURES, new)
        assert server.status(run) == "SUCCESS"
        wait_until(lambda: fitted() == 9)
        wait_until(lambda: [run["status"] for run in started(server)] == ["SUCCESS"] * 2)
        seen = ticks(server)
        wait_until(lambda: ticks(server) >= seen + 2)
        runs = [{key["path"][-1] for key in run["assetSelection"]} for run in started(server)]
        assert runs == [
            {"indicator_table"},
            {
                "quality_rule",
                "rule_evidence",
                "source_shares",
                "dolly_indicators",
                "dolly_selection",
                "study_report",
            },
        ]

        def fresh() -> dict[str, Any]:
            nodes = server.ask(FRESHNESS)["assetNodes"]
            return {
                node["assetKey"]["path"][-1]: info["freshnessStatus"]
                for node in nodes
                if (info := node["freshnessStatusInfo"])
            }

        wait_until(lambda: fresh() == {"quality_rule": "HEALTHY", "dolly_selection": "HEALTHY"})
