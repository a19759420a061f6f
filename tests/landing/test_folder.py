"""Looking into a landing folder, and taking single files out of it, whatever their names."""

import hashlib
import io
import os
import sys
from pathlib import Path

import pytest
from fsspec.registry import _registry

from im_assets.landing.folder import (
    Arrival,
    Changed,
    Folder,
    LandingError,
    open_folder,
    shown_name,
    suffix_of,
)
from im_resources.study import ProfileError
from tests.landing.places import Place, in_memory, local

TARGETS = ("terse", "howto")
# Names that a shell, a pattern, a URL or a path would take for something else.
NAMES = [
    "*.jsonl",
    "[ab].jsonl",
    "a b?.jsonl",
    "é|<b>.jsonl",
    "-rf.jsonl",
    "a..jsonl.csv",
    "%2e%2e",
]


def only(place: Place) -> tuple[Folder, Arrival]:
    (arrival,) = place.folder.look(TARGETS).arrivals
    return place.folder, arrival


def test_files_of_targets_are_seen_and_unfinished_ones_wait(place: Place) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.jsonl.part", "d.tmp", "e.CRDOWNLOAD", ".hidden.jsonl"):
        place.put(f"terse/{name}", b"x")
    place.put("howto/a.jsonl", b"xyz")
    place.put("howto/a.jsonl.done", b"")
    listing = place.folder.look(TARGETS)
    found = [(a.target, a.name, a.size, a.marked) for a in listing.arrivals]
    assert found == [
        ("howto", "a.jsonl", 3, True),
        ("terse", "a.jsonl", 1, False),
        ("terse", "b.jsonl", 1, False),
    ]
    assert listing.left_alone == {}
    assert len({arrival.signature for arrival in listing.arrivals}) == 3
    assert place.folder.look(TARGETS) == listing


def test_what_is_no_file_of_a_target_is_told_and_left_alone(place: Place) -> None:
    place.put("terse/inner/a.jsonl", b"x")
    place.put("terse/gone.jsonl.done", b"")
    place.put("tersse/a.jsonl", b"x")
    place.put("a.jsonl", b"x")
    place.put("rejected/terse/a.jsonl", b"x")
    listing = place.folder.look(TARGETS)
    assert not listing.arrivals
    assert listing.left_alone == {
        "terse/inner": "a folder",
        "terse/gone.jsonl.done": "a marker without its file",
        "tersse/": "no source or pool has this name",
        "a.jsonl": "lies in no folder of a source or pool",
    }


def test_links_pipes_and_linked_folders_are_told_and_never_opened(tmp_path: Path) -> None:
    place = local(tmp_path / "landing")
    place.put("terse/real.jsonl", b"x")
    secret = tmp_path / "secret.jsonl"
    secret.write_text("secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jsonl").write_text("x")
    folder = Path(place.url)
    (folder / "terse" / "link.jsonl").symlink_to(secret)
    (folder / "howto").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "terse" / "pipe.jsonl")
    listing = place.folder.look(TARGETS)
    assert [arrival.name for arrival in listing.arrivals] == ["real.jsonl"]
    assert listing.left_alone == {
        "terse/link.jsonl": "a symbolic link",
        "terse/pipe.jsonl": "a special file",
        "howto": "a symbolic link",
    }


@pytest.mark.parametrize("swap", ["link", "pipe", "folder"])
def test_a_file_that_becomes_something_else_is_not_opened(tmp_path: Path, swap: str) -> None:
    place = local(tmp_path / "landing")
    place.put("terse/a.jsonl", b"x")
    folder, arrival = only(place)
    path = Path(place.url) / "terse" / "a.jsonl"
    path.unlink()
    if swap == "link":
        path.symlink_to(tmp_path)
    elif swap == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises((Changed, OSError)):
        folder.fetch(arrival, io.BytesIO())
    with pytest.raises(Changed):
        folder.remove(arrival)
    assert path.is_symlink() or path.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_taken_for_itself_alone(place: Place, name: str) -> None:
    for other in ("other.jsonl", "a.jsonl", "aXb.jsonl"):
        place.put(f"terse/{other}", b"other")
    place.put(f"terse/{name}", b"content")
    place.put(f"terse/{name}.done", b"")
    (arrival,) = [a for a in place.folder.look(TARGETS).arrivals if a.name == name]
    copy = io.BytesIO()
    sha256 = place.folder.fetch(arrival, copy)
    assert copy.getvalue() == b"content"
    assert sha256 == hashlib.sha256(b"content").hexdigest()
    moved = place.folder.reject(arrival, sha256, "no rows")
    place.put(f"terse/{name}", b"content")
    (again,) = [a for a in place.folder.look(TARGETS).arrivals if a.name == name]
    place.folder.remove(again)
    others = {f"terse/{other}": b"other" for other in ("other.jsonl", "a.jsonl", "aXb.jsonl")}
    assert place.files() == others | {moved: b"content", f"{moved}.reason.txt": b"no rows"}
    assert moved.startswith(f"rejected/terse/{sha256[:12]}-")


def test_a_name_that_is_not_unicode_lands_and_is_shown_escaped(tmp_path: Path) -> None:
    place = local(tmp_path / "landing")
    os.mkdir(f"{place.url}/terse")
    with open(os.fsencode(f"{place.url}/terse/") + b"\xff\n.jsonl", "wb") as file:
        file.write(b"x")
    folder, arrival = only(place)
    assert arrival.shown == "terse/\\udcff\\n.jsonl"
    assert folder.reject(arrival, "0" * 64, "why") == "rejected/terse/000000000000-__.jsonl"


def test_a_file_that_changes_after_it_was_seen_is_left_alone(place: Place) -> None:
    place.put("terse/a.jsonl", b"one")
    folder, arrival = only(place)
    place.put("terse/a.jsonl", b"two")
    for act in (
        lambda: folder.fetch(arrival, io.BytesIO()),
        lambda: folder.remove(arrival),
        lambda: folder.reject(arrival, "0" * 64, "why"),
    ):
        with pytest.raises(Changed):
            act()
    assert place.files() == {"terse/a.jsonl": b"two"}


def test_a_file_that_grows_while_it_is_read_is_not_taken(tmp_path: Path) -> None:
    place = local(tmp_path / "landing")
    place.put("terse/a.jsonl", b"x" * 3_000_000)
    folder, arrival = only(place)

    class Writer(io.BytesIO):
        """Somebody appends while the copy is being written."""

        def write(self, data: object) -> int:
            with open(f"{place.url}/terse/a.jsonl", "ab") as file:
                file.write(b"y")
            return 0

    with pytest.raises(Changed):
        folder.fetch(arrival, Writer())


def test_a_folder_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LandingError, match=r"landing\.folder: '.*nowhere' cannot be read.*make"):
        open_folder(str(tmp_path / "nowhere")).look(TARGETS)
    assert in_memory().folder.look(TARGETS).arrivals == ()  # a store has no empty folders


def test_a_url_is_checked_and_its_secret_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(LandingError, match=r"landing\.folder: 'nope://\$\{SECRET\}@host/x'") as e:
        open_folder("nope://${SECRET}@host/x")
    assert "hunter2" not in str(e.value)
    # As where the extra is not installed, and no other test has used it.
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for name in ("s3", "s3a"):
        monkeypatch.delitem(_registry, name, raising=False)
    with pytest.raises(LandingError, match="s3fs"):
        open_folder("s3://bucket/landing")
    with pytest.raises(ProfileError, match="NOT_SET"):
        open_folder("memory://${NOT_SET}/x")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.jsonl", ".jsonl"),
        ("a.b.CSV.GZ", ".csv.gz"),
        ("a.gz", ".gz"),
        ("a", ""),
        ("a.js/../onl", ""),
        ("a.\n", ""),
        ("a." + "x" * 300, ""),
    ],
)
def test_only_a_suffix_is_taken_of_a_name(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


def test_a_shown_name_is_one_line_of_visible_text() -> None:
    assert shown_name("a\r\x1b[31m\u202eb") == "a\\r\\x1b[31m\\u202eb"
    assert len(shown_name("x" * 999)) == 200
