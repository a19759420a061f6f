"""Who trains a trial, of processes of several machines: claims in the catalog's Postgres."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from im_resources.adapter_store import AdapterStore, Busy
from im_resources.claims import CatalogClaims, ClaimError
from im_resources.remote import RemoteFolders
from im_resources.study import PROJECT_ROOT
from tests import servers
from tests.resources.test_adapter_store import WEIGHTS, adapter

REASON = servers.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def database() -> Iterator[servers.Postgres]:
    with servers.postgres() as running:
        running.create("im")
        yield running


@pytest.fixture
def catalog(database: servers.Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("PGPASSWORD", servers.PASSWORD)
    yield database.address("im")
    if database.process is None or database.process.poll() is not None:
        database.start()


def machine(name: str, catalog: str, folder: Path, patience: float = 60) -> AdapterStore:
    """The study's store on a machine, all of which share a folder and the catalog."""
    remote = RemoteFolders.at(f"{folder}/shared", folder / name / "known")
    root = folder / name / "adapters"
    return AdapterStore(root, remote, CatalogClaims(root, catalog, "study", patience))


TRAINS = """
import sys
from pathlib import Path
from tests.remote.test_claims import adapter, machine

name, catalog, folder = sys.argv[1:]

def train(work):
    print("trains", flush=True)
    sys.stdin.readline()
    adapter(name.encode())(work)

manifest = machine(name, catalog, Path(folder)).publish("abc", train, {"by": name})
print(manifest["by"], flush=True)
"""


def training(name: str, catalog: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", TRAINS, name, catalog, str(folder)],
        cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_of_two_machines_one_trains_and_the_other_finds_it(catalog: str, tmp_path: Path) -> None:
    one, two = (training(name, catalog, tmp_path) for name in ("one", "two"))
    try:
        assert one.stdout is not None
        assert two.stdout is not None
        # Whichever comes first trains; here, the one that says so, of both.
        import select

        (first, *others), _, _ = select.select([one.stdout, two.stdout], [], [], 60)
        assert not others
        assert first.readline() == "trains\n"
        with pytest.raises(Busy):
            machine("three", catalog, tmp_path).publish("abc", adapter(), {}, wait=None)
        trains, waits = (one, two) if first is one.stdout else (two, one)
        out, _ = trains.communicate("go\n", timeout=60)
        winner = out.strip()
        assert waits.communicate(timeout=60)[0].split() == [winner]  # without having trained
    finally:
        for child in (one, two):
            child.kill()
            child.wait()


def test_the_claim_of_a_killed_process_is_free(catalog: str, tmp_path: Path) -> None:
    child = training("one", catalog, tmp_path)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "trains\n"
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL
    two = machine("two", catalog, tmp_path)
    assert two.publish("abc", adapter(), {"by": "two"}, wait=lambda: None)["by"] == "two"


def test_a_training_outlives_the_database_that_holds_its_claim(
    database: servers.Postgres, catalog: str, tmp_path: Path
) -> None:
    one, two = (machine(name, catalog, tmp_path) for name in ("one", "two"))

    def train(folder: Path) -> None:
        database.stop(signal.SIGQUIT)
        adapter()(folder)

    manifest = one.publish("abc", train, {"by": "one"})
    assert two.there("abc") == manifest
    assert (two.folder("abc") / WEIGHTS).read_bytes() == b"weights"


def test_a_database_that_starts_again_is_waited_for(
    database: servers.Postgres, catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.stop()
    waits = []

    def start(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            database.start()

    monkeypatch.setattr("im_resources.claims.time.sleep", start)
    assert machine("one", catalog, tmp_path).publish("abc", adapter(), {})
    assert len(waits) >= 2


def test_a_database_that_stays_down_is_told_without_the_password(
    database: servers.Postgres, catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machine("one", catalog, tmp_path, patience=0)
    monkeypatch.setenv("PGPASSWORD", "not the password")
    with pytest.raises(ClaimError, match=r"study/trial/abc.*authentication failed.*PGPASSWORD"):
        store.publish("abc", adapter(), {})
    database.stop()
    with pytest.raises(ClaimError) as error:
        store.publish("abc", adapter(), {})
    assert "see whether Postgres is up" in str(error.value)
    assert "not the password" not in str(error.value)
    assert "\n" not in str(error.value)
