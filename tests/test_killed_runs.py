"""Runs that are killed, interrupted, or out of disk: what comes after them goes on without a hand.

Real processes of ``python -m im_assets.run`` on a study whose finetunes last for minutes, so that
they are always hit inside a step that holds the slot of the pool ``gpu``.
"""

import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from im_resources.runs import clear_dead_runs, running
from im_resources.study import PROJECT_ROOT, Study, load_study
from tests.language_model.fixtures import tiny_folder
from tests.processes import Forked
from tests.study import write_profile

__all__ = ["tiny_folder"]
pytestmark = pytest.mark.slow
PATIENCE = 600  # seconds for a run to get somewhere
ENDLESS = {"epochs": 100_000, "batch_size": 3, "learning_rate": 2e-4}


class Command:
    """``python -m im_assets.run`` as a user starts it, with its own log."""

    def __init__(self, log: Path, *jobs: str, **variables: str) -> None:
        self.log = log
        log.touch()
        self.process = Forked("im_assets.run", *jobs, log=log, variables=variables)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def ended(self) -> int:
        """The exit code of the process, which has to end."""
        return self.process.wait(PATIENCE)

    def wait(self, happened: Any) -> Any:
        """What ``happened()`` returns as soon as that is something."""
        deadline = time.monotonic() + PATIENCE
        while not (found := happened()):
            assert self.process.poll() is None, self.said()[-4000:]
            assert time.monotonic() < deadline, self.said()[-4000:]
            time.sleep(0.2)
        return found


@pytest.fixture
def study(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Study, dg.DagsterInstance]]:
    """The study in the environment, and its history."""
    profile = write_profile(tmp_path, tiny_folder, finetuning=ENDLESS)
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IM_PROFILE", str(profile))
    study = load_study(str(profile))
    monkeypatch.setenv("DAGSTER_STATE", str(study.history))
    monkeypatch.setenv("DAGSTER_HOME", str(PROJECT_ROOT))
    study.history.mkdir(parents=True)
    with dg.DagsterInstance.get() as instance:
        yield study, instance


@contextmanager
def command(log: Path, *jobs: str, **variables: str) -> Iterator[Command]:
    started = Command(log, *jobs, **variables)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def holder(
    instance: dg.DagsterInstance, step: str | None = None, but: Collection[str] = ()
) -> str | None:
    """The run, none of ``but``, that holds the slot of the pool with ``step``, or with any."""
    if "gpu" not in instance.event_log_storage.get_concurrency_keys():
        return None
    for slot in instance.event_log_storage.get_concurrency_info("gpu").claimed_slots:
        if step in (None, slot.step_key) and slot.run_id not in but:
            return slot.run_id
    return None


def fresh() -> dg.DagsterInstance:
    """The history of the environment, opened anew: another file system lies there now."""
    return dg.DagsterInstance.get()


def status(instance: dg.DagsterInstance, run: str) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run)
    assert found is not None
    return found.status


def steps_trained(study: Study) -> int:
    """So many trials are being written."""
    return len(list((study.folder / "adapters").glob(".writing-*")))


def free(instance: dg.DagsterInstance) -> bool:
    info = instance.event_log_storage.get_concurrency_info("gpu")
    return not info.claimed_slots and not info.pending_steps


def finish(tmp_path: Path) -> None:
    """Make the study short, and run it to its end."""
    profile = Path(os.environ["IM_PROFILE"])
    text = profile.read_text(encoding="utf-8")
    profile.write_text(text.replace("epochs: 100000", "epochs: 1"), encoding="utf-8")
    with command(tmp_path / "last.log", "data", "study") as last:
        assert last.ended() == 0, last.said()[-4000:]


def test_kills_inside_a_gpu_step_block_nothing(
    tmp_path: Path, study: tuple[Study, dg.DagsterInstance]
) -> None:
    settings, instance = study
    killed: set[str] = set()
    for number in range(2):
        with command(tmp_path / f"{number}.log", "data", "study") as victim:
            # Each has to clear the one before away, or it would never hold the slot itself.
            run = victim.wait(lambda: holder(instance, "finetuned_adapters", killed))
            victim.wait(lambda: steps_trained(settings))
            time.sleep(number * 0.3)
            victim.process.kill()
            assert victim.ended() == -signal.SIGKILL
        assert status(instance, run) is dg.DagsterRunStatus.STARTED
        killed.add(run)
    finish(tmp_path)
    assert {status(instance, run) for run in killed} == {dg.DagsterRunStatus.FAILURE}
    assert free(instance)
    assert not list(running(instance).iterdir())


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_job_and_starts_no_other(
    tmp_path: Path, study: tuple[Study, dg.DagsterInstance], sent: int, code: int
) -> None:
    _, instance = study
    with command(tmp_path / "log") as victim:
        run = victim.wait(lambda: holder(instance, "finetuned_adapters"))
        victim.process.send_signal(sent)
        assert victim.ended() == code
        said = victim.said()
    assert said.splitlines()[-1].startswith("INTERRUPTED")
    assert "run the same command again" in said
    assert "killed" not in said.replace("once more kills it", "")
    record = instance.get_run_by_id(run)
    assert record is not None
    assert record.is_finished
    assert instance.get_runs()[0].run_id == run  # the newest: the report did not start
    assert free(instance)
    assert not list(running(instance).iterdir())


def test_who_waits_says_for_whom_and_goes_on_when_that_one_is_killed(
    tmp_path: Path, study: tuple[Study, dg.DagsterInstance]
) -> None:
    _, instance = study
    with command(tmp_path / "first.log", "data", "study") as first:
        holding = first.wait(lambda: holder(instance, "finetuned_adapters"))
        with command(tmp_path / "second.log", "data", "study") as second:
            second.wait(lambda: "waits for one of 1 slots of the pool 'gpu'" in second.said())
            said = second.said()
            assert f"run {holding[:8]} (job study, step finetuned_adapters" in said
            assert f"pid {first.process.pid}" in said
            waiting = instance.get_runs()[0].run_id
            assert waiting != holding
            logged = instance.all_logs(waiting, of_type=dg.DagsterEventType.ENGINE_EVENT)
            assert any(holding[:8] in record.message for record in logged)
            # It waits for a run that lives, and does not take its slot away.
            assert clear_dead_runs(instance) == []
            assert status(instance, holding) is dg.DagsterRunStatus.STARTED
            first.process.kill()
            assert second.wait(lambda: holder(instance, but={holding})) == waiting
    assert status(instance, holding) is dg.DagsterRunStatus.FAILURE


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted as root")
def test_a_full_disk_under_the_history_is_said_and_blocks_nothing(
    tmp_path: Path, study: tuple[Study, dg.DagsterInstance]
) -> None:
    settings, _ = study
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(settings.history)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with command(tmp_path / "full.log", "data", "study") as victim:
            run = victim.wait(lambda: holder(fresh(), "finetuned_adapters"))
            filler = settings.history / "filler"
            with suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            assert victim.ended() == 1
            said = victim.said().splitlines()[-1]
        assert said.startswith(f"the history {settings.history} cannot be written")
        assert "make room there" in said
        filler.unlink()
        finish(tmp_path)
        assert status(fresh(), run) is dg.DagsterRunStatus.FAILURE
        assert free(fresh())
    finally:
        subprocess.run(["umount", "-l", str(settings.history)], check=True)
