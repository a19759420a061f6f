import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from im_resources.adapter_store import AdapterError, AdapterStore
from im_resources.study import PROJECT_ROOT
from tests.processes import wait_for

WEIGHTS = "adapter_model.safetensors"


def adapter(content: bytes = b"weights") -> Callable[[Path], None]:
    """Writes what PEFT writes: the weights, a configuration, a model card."""

    def save(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(content)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "README.md").write_text("a card")

    return save


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


def test_a_published_adapter_is_found_with_its_facts_and_files(store: AdapterStore) -> None:
    assert store.find("seed-000", "abc") is None
    published = store.publish("seed-000", "abc", adapter(), {"losses": [2.0, 1.5]})
    assert store.find("seed-000", "abc") == published
    assert published["losses"] == [2.0, 1.5]
    assert published["fingerprint"] == "abc"
    folder = store.folder("seed-000", "abc")
    assert (folder / WEIGHTS).read_bytes() == b"weights"
    assert set(published["files"]) == {WEIGHTS, "adapter_config.json", "README.md"}
    assert sorted(p.name for p in folder.parent.iterdir()) == ["abc", "latest"]  # nothing else
    assert store.find("seed-001", "abc") is None


def test_latest_is_the_one_published_or_pointed_at_last(store: AdapterStore) -> None:
    with pytest.raises(AdapterError, match=r"no finetuned adapter for seed-000.*materialize"):
        store.latest("seed-000")
    store.publish("seed-000", "one", adapter(b"1"), {})
    store.publish("seed-000", "two", adapter(b"2"), {})
    store.publish("seed-001", "three", adapter(b"3"), {})
    folder, manifest = store.latest("seed-000")
    assert (folder.name, manifest["fingerprint"]) == ("two", "two")
    store.point("seed-000", "one")  # the profile was changed back
    store.point("seed-000", "one")
    assert store.latest("seed-000")[0].name == "one"
    assert (store.latest("seed-001")[0] / WEIGHTS).read_bytes() == b"3"


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_a_damaged_adapter_is_refused_with_a_way_out(store: AdapterStore, damage: str) -> None:
    store.publish("seed-000", "abc", adapter(), {})
    folder = store.folder("seed-000", "abc")
    if damage == "remove":
        (folder / WEIGHTS).unlink()
    else:
        (folder / WEIGHTS).write_bytes(b"weightz" if damage == "change" else b"weig")
    for look in (lambda: store.find("seed-000", "abc"), lambda: store.latest("seed-000")):
        with pytest.raises(AdapterError, match=rf"{WEIGHTS}.*delete the folder.*seed-000"):
            look()
    # What the message proposes works.
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert store.find("seed-000", "abc") is None
    with pytest.raises(AdapterError, match="no finetuned adapter"):
        store.latest("seed-000")
    store.publish("seed-000", "abc", adapter(), {})
    assert store.latest("seed-000")[0] == folder


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../up", "a/b", "/etc", ".hidden", "a\\b", "a b", "a\n", "ä"]
)
def test_names_that_leave_the_root_are_refused(store: AdapterStore, name: str) -> None:
    for partition, fingerprint in ((name, "abc"), ("seed-000", name)):
        with pytest.raises(ValueError, match="not a plain folder name"):
            store.publish(partition, fingerprint, adapter(), {})
        with pytest.raises(ValueError, match="not a plain folder name"):
            store.find(partition, fingerprint)
    assert not store.root.exists()


def test_pickled_weights_are_refused_and_leave_nothing(store: AdapterStore) -> None:
    def save(folder: Path) -> None:
        adapter()(folder)
        (folder / "inner").mkdir()
        (folder / "inner" / "adapter_model.bin").write_bytes(b"pickle")

    with pytest.raises(AdapterError, match=r"pickled weights: adapter_model.bin"):
        store.publish("seed-000", "abc", save, {})
    assert store.find("seed-000", "abc") is None
    assert list((store.root / "seed-000").iterdir()) == []


def test_a_failed_save_leaves_nothing_and_the_old_one_stays(store: AdapterStore) -> None:
    store.publish("seed-000", "old", adapter(), {})

    def save(folder: Path) -> None:
        adapter()(folder)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store.publish("seed-000", "new", save, {})
    assert store.find("seed-000", "new") is None
    assert store.latest("seed-000")[0].name == "old"
    assert sorted(p.name for p in (store.root / "seed-000").iterdir()) == ["latest", "old"]


def test_publishing_again_keeps_one_complete_adapter(store: AdapterStore) -> None:
    first = store.publish("seed-000", "abc", adapter(), {"seconds": 1})
    store.publish("seed-000", "other", adapter(), {})
    again = store.publish("seed-000", "abc", adapter(), {"seconds": 2})
    assert store.find("seed-000", "abc") == again == first == store.latest("seed-000")[1]
    names = sorted(p.name for p in (store.root / "seed-000").iterdir())
    assert names == ["abc", "latest", "other"]


def test_a_folder_without_a_manifest_is_replaced(store: AdapterStore) -> None:
    leftover = store.folder("seed-000", "abc")
    leftover.mkdir(parents=True)
    (leftover / WEIGHTS).write_bytes(b"half")
    assert store.find("seed-000", "abc") is None
    store.publish("seed-000", "abc", adapter(), {})
    assert (store.latest("seed-000")[0] / WEIGHTS).read_bytes() == b"weights"


def test_files_in_folders_and_without_a_suffix_are_vouched_for(store: AdapterStore) -> None:
    def save(folder: Path) -> None:
        adapter()(folder)
        (folder / "v1.0").mkdir()
        (folder / "v1.0" / "VOCAB").write_text("a b c")

    published = store.publish("seed-000", "abc", save, {})
    assert "v1.0/VOCAB" in published["files"]
    (store.folder("seed-000", "abc") / "v1.0" / "VOCAB").write_text("a b")
    with pytest.raises(AdapterError, match="VOCAB"):
        store.find("seed-000", "abc")


def test_many_publish_the_same_adapter_at_once(store: AdapterStore) -> None:
    """Two runs trained the same seed: both succeed, and no reader ever sees it damaged or gone."""
    store.publish("seed-000", "abc", adapter(), {})
    stop = threading.Event()

    def read() -> int:
        reads = 0
        while not stop.is_set() or not reads:
            assert store.latest("seed-000")[1]["fingerprint"] == "abc"
            reads += 1
        return reads

    def publish(_: int) -> None:
        for _ in range(20):
            store.publish("seed-000", "abc", adapter(), {})

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read)
        try:
            list(pool.map(publish, range(4)))
        finally:
            stop.set()
        assert reader.result() > 0
    assert sorted(p.name for p in (store.root / "seed-000").iterdir()) == ["abc", "latest"]


def test_many_publish_a_seeds_first_adapter_at_once(store: AdapterStore) -> None:
    for attempt in range(10):
        barrier = threading.Barrier(4)

        def publish(
            name: str, attempt: int = attempt, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            store.publish(f"seed-{attempt:03d}", name, adapter(), {})

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(publish, ["same", "same", "same", "other"]))
        assert store.latest(f"seed-{attempt:03d}")[0].name in ("same", "other")
        for name in ("same", "other"):
            assert store.find(f"seed-{attempt:03d}", name) is not None


CHILD = """
import sys, time
from pathlib import Path
from im_resources.adapter_store import AdapterStore

def save(folder):
    (folder / "adapter_config.json").write_text("{}")
    with (folder / "adapter_model.safetensors").open("wb") as file:
        while True:
            file.write(b"0" * 4096)
            file.flush()
            time.sleep(0.001)

AdapterStore(Path(sys.argv[1])).publish("seed-000", "abc", save, {})
"""


def test_a_process_killed_while_it_writes_leaves_no_adapter(store: AdapterStore) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(store.root)], cwd=PROJECT_ROOT)
    try:
        wait_for(lambda: any(store.root.glob(f"*/*/{WEIGHTS}")), child)
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    assert store.find("seed-000", "abc") is None
    with pytest.raises(AdapterError, match="no finetuned adapter"):
        store.latest("seed-000")
    published = store.publish("seed-000", "abc", adapter(), {})
    assert store.latest("seed-000") == (store.folder("seed-000", "abc"), published)


def test_the_manifest_is_plain_json_beside_the_weights(store: AdapterStore) -> None:
    published = store.publish("seed-000", "abc", adapter(), {"seed": 0})
    text = (store.folder("seed-000", "abc") / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text) == published
