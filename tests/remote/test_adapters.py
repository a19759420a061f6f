"""Adapters whose truth is at a URL: torn uploads, caches, what is removed for all machines."""

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
from im_resources.published import MANIFEST
from im_resources.remote import RemoteError, RemoteFolders
from im_resources.remote.folders import content_of
from im_resources.study import PROJECT_ROOT
from tests.processes import wait_for
from tests.remote.proxy import Fate, Proxy
from tests.resources.test_adapter_store import WEIGHTS, adapter

Machine = Callable[[str], AdapterStore]


def trained_again(_: Path) -> None:
    raise AssertionError("it was trained already")


def machine_at(url: str, folder: Path) -> AdapterStore:
    remote = RemoteFolders.at(f"{url}/adapters", folder / "known").patient(5)
    return AdapterStore(folder / "adapters", remote)


@pytest.fixture
def machine(url: str, tmp_path: Path) -> Machine:
    """The store as machines of these names see it: each has a folder of its own."""
    return lambda name: machine_at(url, tmp_path / name)


@pytest.fixture
def s3_machine(s3: str, flaky: Proxy, tmp_path: Path) -> Machine:
    """The same at the object store that fails as it is told."""
    return lambda name: machine_at(s3, tmp_path / name)


def stored(store: AdapterStore, ending: str) -> list[str]:
    """The names at the URL that end so."""
    assert store.remote is not None
    return [name for name in store.remote.place.listing() if name.endswith(ending)]


def test_what_one_machine_has_trained_another_finds_and_fetches(machine: Machine) -> None:
    one, two = machine("one"), machine("two")
    manifest = one.publish("abc", adapter(), {"set": "s"})
    assert two.find("abc") == manifest
    assert not two.folder("abc").exists()  # until its files are needed
    assert two.publish("abc", trained_again, {}) == manifest
    assert two.there("abc") == manifest
    assert (two.folder("abc") / WEIGHTS).read_bytes() == b"weights"
    local = json.loads((two.folder("abc") / MANIFEST).read_text(encoding="utf-8"))
    assert local == manifest
    assert [p.name for p in two.root.iterdir()] == ["abc"]


def test_the_manifest_names_the_folder_of_the_files(machine: Machine) -> None:
    """As docs/files.md says that a reader without this project reads it."""
    store = machine("one")
    store.publish("abc", adapter(), {})
    assert store.remote is not None
    place = store.remote.place
    manifest = json.loads(place.read(f"abc/{MANIFEST}") or b"")
    assert place.read(f"abc/{manifest['folder']}/{WEIGHTS}") == b"weights"
    assert len(place.listing()) == 4


def test_an_upload_that_fails_half_way_is_not_there_and_goes_on(
    s3_machine: Machine, flaky: Proxy
) -> None:
    one, two = s3_machine("one"), s3_machine("two")

    def refuse(method: str, path: str) -> Fate:
        return 403 if method == "PUT" and path.endswith(WEIGHTS) else None

    flaky.fate = refuse
    with pytest.raises(RemoteError, match=rf"cannot write s3://.*/{WEIGHTS}.*credentials"):
        one.publish("abc", adapter(), {})
    assert stored(one, "adapter_config.json")
    assert two.find("abc") is None
    flaky.fails(0, None)
    flaky.seen.clear()
    manifest = one.publish("abc", trained_again, {})
    assert two.find("abc") == manifest
    # What had arrived is not uploaded again.
    assert flaky.count("PUT", "adapter_config.json") == 0
    assert flaky.count("PUT", WEIGHTS) == 1
    flaky.seen.clear()
    assert one.publish("abc", trained_again, {}) == manifest
    assert flaky.count("PUT") == 0


PUBLISH = """
import sys
from pathlib import Path
from tests.remote.test_adapters import adapter, machine_at

machine_at(sys.argv[1], Path(sys.argv[2])).publish("abc", adapter(), {})
"""


def test_what_a_killed_process_had_not_uploaded_is_uploaded_and_not_trained_again(
    s3: str, s3_machine: Machine, flaky: Proxy, tmp_path: Path
) -> None:
    in_upload, go_on = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> Fate:
        if method != "PUT" or not path.endswith(WEIGHTS):
            return None
        in_upload.set()
        assert go_on.wait(60)
        return "reset"

    flaky.fate = hold
    command = [sys.executable, "-c", PUBLISH, s3, str(tmp_path / "one")]
    child = subprocess.Popen(command, cwd=PROJECT_ROOT)
    try:
        wait_for(in_upload.is_set, child)
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL
        go_on.set()
    one, two = s3_machine("one"), s3_machine("two")
    flaky.fails(0, None)
    assert two.find("abc") is None
    assert two.manifests() == {}
    one.clean()
    assert list(one.manifests()) == ["abc"]  # and so it is forgotten, if it has to be
    manifest = one.find("abc")
    assert manifest is not None
    assert two.there("abc") == manifest
    assert one.publish("abc", trained_again, {}) == manifest


def test_a_torn_upload_of_a_lost_machine_is_overwritten(s3_machine: Machine, flaky: Proxy) -> None:
    flaky.fate = lambda method, path: 403 if path.endswith(MANIFEST) and method == "PUT" else None
    with pytest.raises(RemoteError):
        s3_machine("lost").publish("abc", adapter(b"of the lost machine"), {})
    flaky.fails(0, None)
    two = s3_machine("two")
    assert two.find("abc") is None
    two.publish("abc", adapter(b"of another"), {})
    three = s3_machine("three")
    three.there("abc")
    assert (three.folder("abc") / WEIGHTS).read_bytes() == b"of another"
    two.remove_checkpoints()
    assert len(stored(two, WEIGHTS)) == 1  # what nothing vouches for is gone


def test_an_outage_and_a_slow_store_are_outlasted(s3_machine: Machine, flaky: Proxy) -> None:
    flaky.fails(3, 503)
    manifest = s3_machine("one").publish("abc", adapter(), {})
    flaky.fails(1, "stall")
    assert s3_machine("two").there("abc") == manifest


def test_what_is_in_the_cache_is_not_downloaded(s3_machine: Machine, flaky: Proxy) -> None:
    one, two = s3_machine("one"), s3_machine("two")
    one.publish("abc", adapter(), {})
    flaky.seen.clear()
    one.there("abc")
    assert flaky.count("GET", WEIGHTS) == 0
    two.there("abc")
    assert flaky.count("GET", WEIGHTS) == 1
    two.there("abc")
    assert flaky.count("GET", WEIGHTS) == 1


FETCH = """
import sys
from pathlib import Path
from tests.remote.test_adapters import machine_at

machine_at(sys.argv[1], Path(sys.argv[2])).there("abc")
"""


def test_a_process_killed_while_it_fetches_leaves_nothing_half(
    s3: str, s3_machine: Machine, flaky: Proxy, tmp_path: Path
) -> None:
    manifest = s3_machine("one").publish("abc", adapter(), {})
    in_download, go_on = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> Fate:
        if method == "GET" and path.endswith(WEIGHTS):
            in_download.set()
            assert go_on.wait(60)
        return None

    flaky.fate = hold
    two = s3_machine("two")
    command = [sys.executable, "-c", FETCH, s3, str(tmp_path / "two")]
    child = subprocess.Popen(command, cwd=PROJECT_ROOT)
    try:
        wait_for(in_download.is_set, child)
        two.clean()
        assert (two.root / ".fetching-abc").is_dir()  # of a live process
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL
        go_on.set()
    flaky.fails(0, None)
    assert not two.folder("abc").exists()
    two.clean()
    assert list(two.root.iterdir()) == []
    assert two.there("abc") == manifest


def test_many_that_need_an_adapter_download_it_once(s3_machine: Machine, flaky: Proxy) -> None:
    s3_machine("one").publish("abc", adapter(), {})
    flaky.seen.clear()
    two = s3_machine("two")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(two.there, ["abc"] * 4))
    assert flaky.count("GET", WEIGHTS) == 1


@pytest.mark.parametrize("damage", ["change", "cut", "remove", "manifest"])
def test_a_damaged_copy_of_this_machine_is_fetched_again(machine: Machine, damage: str) -> None:
    store = machine("one")
    manifest = store.publish("abc", adapter(), {})
    path = store.folder("abc") / WEIGHTS
    if damage == "remove":
        path.unlink()
    elif damage == "manifest":
        (store.folder("abc") / MANIFEST).write_text("{")
    else:
        path.write_bytes(b"weightz" if damage == "change" else b"weig")
    assert store.find("abc") == manifest
    assert store.there("abc") == manifest
    assert path.read_bytes() == b"weights"


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_damage_at_the_url_is_told_with_its_url(machine: Machine, damage: str) -> None:
    one, two = machine("one"), machine("two")
    one.publish("abc", adapter(), {})
    assert two.remote is not None
    place = two.remote.place
    (name,) = stored(two, WEIGHTS)
    place.write(name, b"weightz") if damage == "change" else place.delete_file(name)
    with pytest.raises(AdapterError) as error:
        two.there("abc")
    assert place.of(name) in str(error.value)
    assert f"delete the folder {place.of('abc')} there" in str(error.value)
    assert not two.folder("abc").exists()
    assert one.there("abc")  # whose copy is intact
    # What the message proposes works: who has it uploads it again.
    place.delete("abc")
    assert one.find("abc") is not None
    assert two.there("abc")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'{"files": {"../../evil": "0"}}', b'{"files": {}}']
)
def test_a_garbled_manifest_at_the_url_is_told_with_its_url(
    machine: Machine, content: bytes
) -> None:
    store = machine("one")
    assert store.remote is not None
    store.remote.place.write(f"abc/{MANIFEST}", content)
    for look in (store.find, store.there, lambda _: store.manifests()):
        with pytest.raises(AdapterError, match=rf"/abc/{MANIFEST} is damaged.*delete the folder"):
            look("abc")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", MANIFEST])
def test_a_bucket_cannot_write_outside_of_an_adapter(machine: Machine, name: str) -> None:
    store = machine("one")
    assert store.remote is not None
    manifest = {"fingerprint": "abc", "files": {name: "0" * 64}, "folder": "0" * 16}
    store.remote.place.write(f"abc/{MANIFEST}", json.dumps(manifest).encode())
    with pytest.raises(AdapterError, match="is damaged: it names"):
        store.there("abc")


def test_pickled_weights_at_the_url_are_refused(machine: Machine) -> None:
    store = machine("one")
    assert store.remote is not None
    files = {"adapter_model.bin": "0" * 64}
    manifest = {"fingerprint": "abc", "files": files, "folder": content_of({"files": files})}
    store.remote.place.write(f"abc/{MANIFEST}", json.dumps(manifest).encode())
    with pytest.raises(AdapterError, match=r"pickled weights: adapter_model\.bin"):
        store.there("abc")


def test_each_manifest_is_read_once(s3_machine: Machine, flaky: Proxy) -> None:
    one, two = s3_machine("one"), s3_machine("two")
    for number in range(12):
        one.publish(f"trial-{number:02d}", adapter(), {"set": f"set-{number}"})
    flaky.seen.clear()
    sets = two.sets()
    assert sets == {f"trial-{number:02d}": f"set-{number}" for number in range(12)}
    assert flaky.count("GET", MANIFEST) == 12
    assert two.sets() == sets
    assert flaky.count("GET", MANIFEST) == 12
    one.remove("trial-03")
    one.publish("trial-99", adapter(), {"set": "new"})
    flaky.seen.clear()
    del sets["trial-03"]
    assert two.sets() == sets | {"trial-99": "new"}
    assert flaky.count("GET", MANIFEST) == 1
    assert flaky.count("GET", WEIGHTS) == 0


def test_what_is_removed_is_removed_for_all_machines(machine: Machine) -> None:
    one, two = machine("one"), machine("two")
    one.publish("abc", adapter(), {"set": "s"})
    two.there("abc")
    two.publish("kept", adapter(), {})
    one.remove("abc")
    assert stored(one, WEIGHTS) == [name for name in stored(one, WEIGHTS) if "kept" in name]
    assert list(two.manifests()) == ["kept"]
    two.clean()
    assert not two.folder("abc").exists()
    assert two.folder("kept").exists()
    assert two.find("abc") is None
    # Made anew, it is as any other.
    two.publish("abc", adapter(b"anew"), {})
    two.clean()
    assert one.there("abc")
    assert (one.folder("abc") / WEIGHTS).read_bytes() == b"anew"


def test_a_copy_of_what_was_removed_is_not_uploaded_again(machine: Machine) -> None:
    one, two = machine("one"), machine("two")
    one.publish("abc", adapter(), {})
    two.there("abc")
    one.remove("abc")
    assert two.find("abc") is None
    assert not two.folder("abc").exists()


def test_adapters_of_before_there_was_a_url_are_uploaded(machine: Machine) -> None:
    one, two = machine("one"), machine("two")
    manifest = AdapterStore(one.root).publish("abc", adapter(), {"set": "s"})
    assert one.sets() == {"abc": "s"}
    assert two.find("abc") is None
    assert one.find("abc") == manifest
    assert two.there("abc") == manifest


def test_the_first_of_two_that_differ_stays(machine: Machine) -> None:
    """Both have trained it, since the claims were lost; no reader sees a mix of them."""
    one, two = machine("one"), machine("two")

    def meanwhile(folder: Path) -> None:
        adapter(b"of the second")(folder)
        one.publish("abc", adapter(b"of the first"), {"by": "one"})

    assert two.publish("abc", meanwhile, {"by": "two"})["by"] == "one"
    for store in (one, two, machine("three")):
        assert store.there("abc")["by"] == "one"
        assert (store.folder("abc") / WEIGHTS).read_bytes() == b"of the first"
