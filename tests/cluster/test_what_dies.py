"""A whole study while its cluster, its catalog and its object store die: the same tables."""

import itertools
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from im_resources.study import load_study
from im_resources.warehouse import Warehouse
from tests.cluster.same_numbers import Beyond, Place, beyond, require_same, run
from tests.language_model.models import write_model
from tests.remote.proxy import Fate
from tests.servers import PATIENCE, missing
from tests.study import write_profile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
FINETUNES = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def profile(model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _profile(tmp_path_factory.mktemp("profile"), model, "tiny")


def _profile(folder: Path, model: Path, name: str) -> str:
    """Of finetunes that take their time, so that something can die in them."""
    slow = {"trainer": "patient", "options": {"seconds": 1.5}}
    plugins = ["tests.cluster.trainers"]
    return str(write_profile(folder, model, name, finetuning=slow, plugins=plugins))


@pytest.fixture(scope="module")
def here(profile: str, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The study on this machine, where nothing dies."""
    return _here(profile, tmp_path_factory.mktemp("here"))


def _here(profile: str, home: Path) -> Warehouse:
    code, said = run(home, profile)
    assert code == 0, said
    return Warehouse(home / load_study(profile).name / "warehouse.duckdb")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beyond]:
    with beyond(tmp_path_factory.mktemp("beyond")) as found:
        yield found


@pytest.fixture
def store(cluster: Beyond) -> Iterator[Callable[..., None]]:
    """Has the object store do what a function of a request says, until the end of the test."""

    def does(fate: Callable[[str, str], Fate]) -> None:
        cluster.store.fate = fate

    yield does
    cluster.store.fate = lambda method, path: None


def test_a_worker_and_the_catalog_die_and_the_store_fails(
    cluster: Beyond, profile: str, here: Warehouse, store: Callable[..., None]
) -> None:
    place, lock, asked = cluster.place("attacked"), threading.Lock(), itertools.count(1)
    fates: list[Fate] = [503, 500, "reset", "cut", "stall"]
    failed: list[Fate] = []

    def fate(method: str, path: str) -> Fate:
        with lock:
            if next(asked) % 15:
                return None
            failed.append(fates[len(failed) % len(fates)])
            return failed[-1]

    def attack(process: "subprocess.Popen[bytes]") -> None:
        store(fate)
        node = cluster.cluster.nodes[1]
        _until(lambda: "ray::train_trials" in [p.name() for p in node.workers()], process)
        node.kill()
        cluster.cluster.add("node-4")
        _until(lambda: _adapters(cluster, place), process)
        cluster.database.stop(signal.SIGQUIT)
        time.sleep(2)
        cluster.database.start()

    code, said = place.run(profile, during=attack)
    assert code == 0, said
    require_same(place.apart(here, load_study(profile)))
    assert {*failed} == {*fates}
    assert re.search(r"was lost .*go elsewhere \(attempt 2 of 3\)", said), said


def test_a_head_dies_and_the_study_goes_on_when_it_is_started_again(
    cluster: Beyond, profile: str, here: Warehouse
) -> None:
    place = cluster.place("beheaded")

    def attack(process: "subprocess.Popen[bytes]") -> None:
        # More than workers: so the run has been told of one that was finished before.
        _until(lambda: len(_adapters(cluster, place)) > 3, process)
        for node in cluster.cluster.nodes:
            node.kill()

    code, said = place.run(profile, during=attack)
    assert code == 1, said
    lines = [line for line in said.splitlines() if "is gone" in line]
    assert lines, said
    assert "were finished and are kept: start" in lines[0]
    assert "Traceback" not in said
    kept = int(re.findall(r"(\d+) of \d+ were finished", lines[0])[0])
    cluster.cluster.start_head()
    for name in ("node-5", "node-6", "node-7"):
        cluster.cluster.add(name)
    code, said = place.run(profile)
    assert code == 0, said
    require_same(place.apart(here, load_study(profile)))
    # What says that an adapter is there is written last, and once, in both runs together.
    written = _adapters(cluster, place)
    assert len(written) == len(set(written)) == FINETUNES
    assert 0 < kept < FINETUNES


def test_two_studies_at_once(
    cluster: Beyond, profile: str, here: Warehouse, model: Path, tmp_path: Path
) -> None:
    other = _profile(tmp_path, model, "other")
    place = cluster.place("shared")  # one catalog, one bucket
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(place.run, profile), pool.submit(place.run, other)]
        ended = [run.result() for run in runs]
    for code, said in ended:
        assert code == 0, said
    require_same(place.apart(here, load_study(profile)))
    require_same(place.apart(_here(other, tmp_path / "here"), load_study(other)))


def _adapters(cluster: Beyond, place: Place) -> list[str]:
    """Where each adapter's manifest was written, in that order."""
    path = re.compile(rf"/mining/{place.name}/files/.*/adapters/[^/]+/manifest\.json")
    return [p for method, p in cluster.store.seen if method == "PUT" and path.match(p)]


def _until(there: Callable[[], object], process: "subprocess.Popen[bytes]") -> None:
    """Wait for it while the run goes on."""
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert process.poll() is None, "the run ended before"
        assert time.monotonic() < deadline
        time.sleep(0.1)
