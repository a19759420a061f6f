"""Runs of the daemon, several at a time: killed, terminated, and asked for twice."""

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from im_resources.runs import PROCESS, running
from im_resources.study import PROJECT_ROOT, Study, load_study
from im_resources.warehouse import Warehouse
from tests.language_model.fixtures import tiny_folder
from tests.processes import Forked
from tests.study import write_profile
from tests.webserver import Webserver, selected, wait_until, webserver

__all__ = ["tiny_folder"]
pytestmark = pytest.mark.slow
MIXTURES = ("mixed_samples", "finetuned_adapters", "eval_losses")
DATA = "candidate_datasets,mixture_seeds,dolly_dataset,eval_set,base_losses"
SEEDS = [f"seed-{number:03d}" for number in range(4)]
ENDLESS, SHORT = 100_000, 1


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("runs")
    profile = write_profile(folder, tiny_folder, finetuning={"epochs": SHORT})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IM_HOME", str(folder / "home"))
        patch.setenv("IM_PROFILE", str(profile))
        study = load_study(str(profile))
        patch.setenv("DAGSTER_STATE", str(study.history))
        patch.setenv("DAGSTER_HOME", str(PROJECT_ROOT))
        study.history.mkdir(parents=True)
        log = folder / "log"
        chosen = ("-m", "im_assets.definitions", "--select", DATA)
        made = Forked("dagster", "asset", "materialize", *chosen, log=log)
        assert made.wait() == 0, log.read_text(encoding="utf-8")
        yield study


@pytest.fixture(scope="module")
def server(study: Study) -> Iterator[Webserver]:
    with webserver(study) as started:
        yield started


def epochs(number: int) -> None:
    """Every run reads the profile when it starts."""
    profile = Path(os.environ["IM_PROFILE"])
    text = profile.read_text(encoding="utf-8")
    for old in (ENDLESS, SHORT, 3):
        text = text.replace(f"epochs: {old}\n", f"epochs: {number}\n")
    profile.write_text(text, encoding="utf-8")


def training(instance: dg.DagsterInstance) -> str | None:
    """The run that finetunes now."""
    if "gpu" in instance.event_log_storage.get_concurrency_keys():
        for slot in instance.event_log_storage.get_concurrency_info("gpu").claimed_slots:
            if slot.step_key == "finetuned_adapters":
                return slot.run_id
    return None


def test_a_killed_run_is_cleared_and_the_next_backfill_goes_on(
    server: Webserver, study: Study
) -> None:
    epochs(ENDLESS)
    with dg.DagsterInstance.get() as instance:
        killed_backfill = server.launch(selected(MIXTURES, SEEDS[:2]))
        killed = wait_until(lambda: training(instance))
        record = instance.get_run_by_id(killed)
        assert record is not None
        # One that is launched while the other still lives has to wait for its slot.
        epochs(SHORT)
        waiting = server.launch(selected(MIXTURES, SEEDS[2:]))
        os.kill(int(record.tags[PROCESS].rpartition(" ")[2]), signal.SIGKILL)
        assert server.ended(killed_backfill) == [killed]
        assert server.status(killed) == "FAILURE"
        (next_run,) = server.ended(waiting)
        assert server.status(next_run) == "SUCCESS"
        assert not instance.event_log_storage.get_concurrency_info("gpu").claimed_slots


def is_held(path: Path) -> bool:
    """Whether a process holds the file of a run."""
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def test_a_terminated_run_ends_at_its_next_step_and_frees_its_slot(server: Webserver) -> None:
    epochs(ENDLESS)
    with dg.DagsterInstance.get() as instance:
        backfill = server.launch(selected(MIXTURES, SEEDS))
        run = wait_until(lambda: training(instance))
        server.terminate(run)
        server.ended(backfill)
        assert server.status(run) == "CANCELED"
        wait_until(lambda: training(instance) is None)
        # The process is gone too, and not only its mark: nobody holds the run's file any more.
        # Where the run was not finished when it went, the file stays until the next look.
        epochs(SHORT)
        wait_until(lambda: not is_held(running(instance) / run))


def test_two_overlapping_backfills_do_the_work_once(server: Webserver, study: Study) -> None:
    epochs(3)
    both = [server.launch(selected(MIXTURES, keys)) for keys in (SEEDS[:3], SEEDS[1:])]
    trained: dict[str, list[Any]] = {}
    for backfill in both:
        (run,) = server.ended(backfill)
        assert server.status(run) == "SUCCESS"
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(dg.AssetKey("finetuned_adapters"), limit=6)
    for record in records.records:
        made = record.asset_materialization
        assert made is not None
        now = made.metadata["trained in this run"].value
        trained.setdefault(str(made.partition), []).append(now)
    assert {key: sum(now) for key, now in trained.items()} == dict.fromkeys(SEEDS, 1)
    assert len(Warehouse(study.warehouse).read_table("finetuned_adapters")) == len(SEEDS)
