import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from im_resources.adapter_store import STALE_SECONDS, AdapterError, AdapterStore, Busy
from im_resources.published import DiskError
from im_resources.remote import RemoteFolders
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


@pytest.fixture(params=["this machine", "a shared folder", "an object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AdapterStore:
    """An empty store: what all kinds of it have in common."""
    if request.param == "this machine":
        return AdapterStore(tmp_path / "adapters")
    object_store = request.param == "an object store"
    url = request.getfixturevalue("s3") if object_store else tmp_path / "shared"
    remote = RemoteFolders.at(f"{url}/adapters", tmp_path / "known").patient(5)
    return AdapterStore(tmp_path / "adapters", remote)


@pytest.fixture
def local(tmp_path: Path) -> AdapterStore:
    """A store of this machine alone."""
    return AdapterStore(tmp_path / "adapters")


def names(store: AdapterStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir())


def at_once(do: Callable[[str], Any], trials: Sequence[str]) -> list[Any]:
    """What ``do`` gives for each, all starting at one moment in threads of their own."""
    barrier = threading.Barrier(len(trials))

    def one(trial: str) -> Any:
        barrier.wait()
        return do(trial)

    with ThreadPoolExecutor(len(trials)) as pool:
        return list(pool.map(one, trials))


def test_a_published_adapter_is_found_with_its_facts_and_files(store: AdapterStore) -> None:
    assert store.find("abc") is None
    published = store.publish("abc", adapter(), {"losses": [2.0, 1.5]})
    assert store.find("abc") == store.there("abc") == published
    assert published["losses"] == [2.0, 1.5]
    assert published["fingerprint"] == "abc"
    folder = store.folder("abc")
    assert (folder / WEIGHTS).read_bytes() == b"weights"
    assert set(published["files"]) == {WEIGHTS, "adapter_config.json", "README.md"}
    assert names(store) == ["abc"]  # nothing else
    assert store.find("other") is None


def test_one_that_has_to_be_there_says_how_to_get_it(store: AdapterStore) -> None:
    with pytest.raises(AdapterError, match=r"the finetune abc is not in .*materialize"):
        store.there("abc")


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_a_damaged_adapter_is_refused_with_a_way_out(local: AdapterStore, damage: str) -> None:
    local.publish("abc", adapter(), {})
    folder = local.folder("abc")
    if damage == "remove":
        (folder / WEIGHTS).unlink()
    else:
        (folder / WEIGHTS).write_bytes(b"weightz" if damage == "change" else b"weig")
    for look in (local.find, local.there):
        with pytest.raises(AdapterError, match=rf"{WEIGHTS}.*delete the folder.*abc"):
            look("abc")
    # What the message proposes works.
    shutil.rmtree(folder)
    assert local.find("abc") is None
    local.publish("abc", adapter(), {})
    assert local.there("abc")["fingerprint"] == "abc"


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../up", "a/b", "/etc", ".hidden", "a\\b", "a b", "a\n", "ä"]
)
def test_names_that_leave_the_root_are_refused(store: AdapterStore, name: str) -> None:
    with pytest.raises(ValueError, match="not a plain folder name"):
        store.publish(name, adapter(), {})
    for look in (store.find, store.there, store.folder):
        with pytest.raises(ValueError, match="not a plain folder name"):
            look(name)
    assert not store.root.exists()


def test_pickled_weights_are_refused_and_leave_nothing(store: AdapterStore) -> None:
    def save(folder: Path) -> None:
        adapter()(folder)
        (folder / "inner").mkdir()
        (folder / "inner" / "adapter_model.bin").write_bytes(b"pickle")

    with pytest.raises(AdapterError, match=r"pickled weights: adapter_model.bin"):
        store.publish("abc", save, {})
    assert store.find("abc") is None
    assert names(store) == []


def test_a_failed_save_leaves_nothing_and_the_old_one_stays(store: AdapterStore) -> None:
    old = store.publish("old", adapter(), {})

    def save(folder: Path) -> None:
        adapter()(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskError, match=r"adapters/new: No space left on device; free some space"):
        store.publish("new", save, {})
    assert store.find("new") is None
    assert store.find("old") == old
    assert names(store) == ["old"]


def test_publishing_again_keeps_one_complete_adapter(store: AdapterStore) -> None:
    first = store.publish("abc", adapter(), {"seconds": 1})
    store.publish("other", adapter(), {})
    again = store.publish("abc", adapter(b"trained again"), {"seconds": 2})
    assert store.find("abc") == again == first
    assert (store.folder("abc") / WEIGHTS).read_bytes() == b"weights"
    assert names(store) == ["abc", "other"]


def test_a_folder_without_a_manifest_is_replaced(local: AdapterStore) -> None:
    leftover = local.folder("abc")
    leftover.mkdir(parents=True)
    (leftover / WEIGHTS).write_bytes(b"half")
    assert local.find("abc") is None
    local.publish("abc", adapter(), {})
    assert local.there("abc")
    assert (leftover / WEIGHTS).read_bytes() == b"weights"


def test_files_in_folders_and_without_a_suffix_are_vouched_for(local: AdapterStore) -> None:
    def save(folder: Path) -> None:
        adapter()(folder)
        (folder / "v1.0").mkdir()
        (folder / "v1.0" / "VOCAB").write_text("a b c")

    published = local.publish("abc", save, {})
    assert "v1.0/VOCAB" in published["files"]
    (local.folder("abc") / "v1.0" / "VOCAB").write_text("a b")
    with pytest.raises(AdapterError, match="VOCAB"):
        local.find("abc")


def test_many_publish_the_same_adapter_at_once(store: AdapterStore) -> None:
    """Two runs trained the same trial: both succeed, and no reader sees it damaged or gone."""
    store.publish("abc", adapter(), {})
    stop = threading.Event()

    def read() -> int:
        reads = 0
        while not stop.is_set() or not reads:
            assert store.there("abc")["fingerprint"] == "abc"
            reads += 1
        return reads

    def publish(_: int) -> None:
        for _ in range(20):
            store.publish("abc", adapter(), {})

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read)
        try:
            list(pool.map(publish, range(4)))
        finally:
            stop.set()
        assert reader.result() > 0
    assert names(store) == ["abc"]


def test_many_publish_a_trials_first_adapter_at_once(store: AdapterStore) -> None:
    attempts = 10 if store.remote is None else 3  # each is a few requests
    for attempt in range(attempts):
        same, other = f"same-{attempt}", f"other-{attempt}"

        def publish(trial: str) -> dict[str, Any]:
            return store.publish(trial, adapter(), {"by": threading.get_ident()})

        published = at_once(publish, [same, same, same, other])
        for trial, manifest in zip([same, same, same, other], published, strict=True):
            assert store.find(trial) == manifest  # of all, one stayed, and all were told so
    assert len(names(store)) == 2 * attempts


# -- the layout before: <root>/<partition>/<trial>, with a file that named the latest -----------


def of_the_layout_before(store: AdapterStore, partition: str, trial: str) -> dict[str, Any]:
    """An adapter as earlier versions left it; its manifest."""
    before = AdapterStore(store.root / partition)
    manifest = before.publish(trial, adapter(f"{partition} {trial}".encode()), {"seed": 0})
    (store.root / partition / "latest").write_text(trial)
    return manifest


def test_an_adapter_of_the_layout_before_is_moved_here_and_not_trained_again(
    store: AdapterStore,
) -> None:
    one = of_the_layout_before(store, "seed-000", "one")
    of_the_layout_before(store, "seed-001", "two")
    assert store.find("one") == one
    assert (store.folder("one") / WEIGHTS).read_bytes() == b"seed-000 one"
    assert not (store.root / "seed-000" / "one").exists()
    assert (store.root / "seed-001" / "two").is_dir()  # untouched until it is asked for
    assert store.find("one") == one
    assert store.there("two")["fingerprint"] == "two"
    assert store.find("three") is None


def test_an_old_folder_without_a_manifest_or_that_is_being_written_is_not_taken(
    store: AdapterStore,
) -> None:
    adapter_folder = store.root / "seed-000" / "one"
    adapter_folder.mkdir(parents=True)
    (adapter_folder / WEIGHTS).write_bytes(b"half")
    assert store.find("one") is None
    assert (adapter_folder / WEIGHTS).is_file()


def test_a_damaged_adapter_of_the_layout_before_is_refused(local: AdapterStore) -> None:
    of_the_layout_before(local, "seed-000", "one")
    (local.root / "seed-000" / "one" / WEIGHTS).write_bytes(b"weig")
    with pytest.raises(AdapterError, match=rf"{WEIGHTS}.*delete the folder"):
        local.find("one")


def test_threads_that_look_for_an_old_adapter_at_once_all_find_it(store: AdapterStore) -> None:
    for attempt in range(20 if store.remote is None else 4):
        trial = f"trial-{attempt}"
        manifest = of_the_layout_before(store, "seed-000", trial)
        assert at_once(store.find, [trial] * 4) == [manifest] * 4


FIND = """
import json, sys
from pathlib import Path
from im_resources.adapter_store import AdapterStore

print("ready", flush=True)
sys.stdin.readline()
store = AdapterStore(Path(sys.argv[1]))
print(json.dumps([store.find(trial) for trial in sys.argv[2:]]))
"""


def test_processes_that_look_for_old_adapters_at_once_all_find_them(local: AdapterStore) -> None:
    trials = [f"trial-{i}" for i in range(60)]
    manifests = [of_the_layout_before(local, f"seed-{i:03d}", t) for i, t in enumerate(trials)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", FIND, str(local.root), *trials],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        assert json.loads(child.communicate(timeout=60)[0]) == manifests
    assert sorted(p.name for p in local.root.iterdir() if (p / WEIGHTS).is_file()) == sorted(trials)


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

AdapterStore(Path(sys.argv[1])).publish("abc", save, {})
"""


def test_a_process_killed_while_it_writes_leaves_no_adapter(local: AdapterStore) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(local.root)], cwd=PROJECT_ROOT)
    try:
        wait_for(lambda: any(local.root.glob(f"*/{WEIGHTS}")), child)
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    assert local.find("abc") is None
    with pytest.raises(AdapterError, match="abc is not in"):
        local.there("abc")
    published = local.publish("abc", adapter(), {})
    assert local.there("abc") == published


def test_the_manifest_is_plain_json_beside_the_weights(store: AdapterStore) -> None:
    published = store.publish("abc", adapter(), {"seed": 0})
    text = (store.folder("abc") / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text) == published


@pytest.mark.parametrize(
    "content",
    [b"", b'{"files": {', b"[1, 2]", b"{}", b"\xff\xfe\x00", b'{"files": 3}', b"[" * 100_000],
)
def test_a_garbled_manifest_names_the_folder_and_the_remedy(
    local: AdapterStore, content: bytes
) -> None:
    local.publish("abc", adapter(), {"seed": 0})
    (local.folder("abc") / "manifest.json").write_bytes(content)
    with pytest.raises(AdapterError, match=r"manifest.json is damaged.*delete the folder .*/abc"):
        local.find("abc")


def test_another_trials_folder_is_not_taken_for_it(local: AdapterStore) -> None:
    local.publish("abc", adapter(), {})
    shutil.copytree(local.folder("abc"), local.folder("xyz"))
    with pytest.raises(AdapterError, match=r"manifest.json is of another trial; delete .*/xyz"):
        local.find("xyz")


def test_an_adapter_of_before_there_were_sizes_is_found(local: AdapterStore) -> None:
    manifest = local.publish("abc", adapter(), {})
    del manifest["sizes"]
    (local.folder("abc") / "manifest.json").write_text(json.dumps(manifest))
    assert local.find("abc") == manifest


def test_who_comes_second_waits_and_finds_it(store: AdapterStore) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(folder: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        adapter(b"of the first")(folder)

    waits = []

    def wait() -> None:
        waits.append(1)
        go_on.set()

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.publish, "abc", slowly, {"by": "first"})
        assert begun.wait(60)
        with pytest.raises(Busy):
            store.publish("abc", adapter(), {"by": "second"}, wait=None)
        second = store.publish("abc", adapter(), {"by": "second"}, wait=wait)
        assert waits
        assert second == first.result()
    assert second["by"] == "first"
    assert names(store) == ["abc"]


HOLDS = """
import sys, time
from pathlib import Path
from im_resources.adapter_store import AdapterStore

def save(folder):
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    print("writing", flush=True)
    time.sleep(600)

AdapterStore(Path(sys.argv[1])).publish("abc", save, {})
"""


def test_what_a_live_process_writes_stays_and_a_dead_ones_goes(store: AdapterStore) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(store.root)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        store.clean()
        assert (store.root / ".writing-abc" / WEIGHTS).is_file()
        with pytest.raises(Busy):
            store.publish("abc", adapter(), {}, wait=None)
    finally:
        child.kill()
        child.wait()
    assert names(store) == [".lock-abc", ".writing-abc"]  # and the kernel has freed the claim
    store.clean()
    assert names(store) == []
    store.publish("abc", adapter(), {}, wait=None)


def test_checkpoints_go_with_their_trial_or_when_nobody_wants_them(store: AdapterStore) -> None:
    for trial in ("one", "two", "three"):
        store.checkpoints(trial).mkdir(parents=True)
        (store.checkpoints(trial) / "0.safetensors").write_bytes(b"state")
    store.clean()
    assert len(names(store)) == 3
    store.publish("one", adapter(), {})
    assert not store.checkpoints("one").exists()
    long_ago = store.checkpoints("two").stat().st_mtime - STALE_SECONDS - 60
    os.utime(store.checkpoints("two"), (long_ago, long_ago))
    store.clean()
    assert names(store) == [".checkpoint-three", "one"]


@pytest.mark.skipif(not os.path.ismount("/sys"), reason="needs a folder that nobody may write to")
def test_a_folder_that_cannot_be_written_says_what_to_do() -> None:
    with pytest.raises(DiskError, match=r"finetune abc in /sys/.*(mount|right).*IM_HOME"):
        AdapterStore(Path("/sys", "adapters")).publish("abc", adapter(), {})


def test_what_is_removed_leaves_no_checkpoint_either(store: AdapterStore) -> None:
    store.publish("abc", adapter(), {"set": "s"})
    for trial in ("abc", "xyz"):
        store.checkpoints(trial).mkdir()
    assert store.sets() == {"abc": "s"}
    store.remove("abc")
    assert names(store) == [".checkpoint-xyz"]
    store.remove_checkpoints()
    assert names(store) == []
