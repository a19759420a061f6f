"""Exports at a URL: a reader finds the old version or the new, and never both."""

import json
from pathlib import Path

import pytest

from im_resources.published import MANIFEST
from im_resources.remote import Place, RemoteError, RemoteFolders
from im_resources.remote.__main__ import main
from im_resources.remote.exports import Exports, written_at
from tests.remote.proxy import Fate, Proxy


def report(folder: Path, **pages: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    return folder


def read(place: Place, name: str) -> dict[str, bytes | None]:
    """An export as docs/files.md says that a reader reads it."""
    manifest = json.loads(place.read(f"{name}/{MANIFEST}") or b"")
    return {file: place.read(f"{name}/{manifest['folder']}/{file}") for file in manifest["files"]}


@pytest.fixture
def exports(url: str, tmp_path: Path) -> Exports:
    return Exports(RemoteFolders.at(url, tmp_path / "known").patient(5))


def test_without_a_url_nothing_is_published(tmp_path: Path) -> None:
    assert Exports(None).publish(report(tmp_path / "report", index="a")) is None
    assert Exports(None).forget("*") == []


def test_a_version_takes_the_place_of_the_one_before(exports: Exports, tmp_path: Path) -> None:
    assert exports.remote is not None
    place = exports.remote.place
    first = exports.publish(report(tmp_path / "report", index="one", more="one"))
    assert first is not None
    assert read(place, "report") == {"index.html": b"one", "more.html": b"one"}
    assert exports.publish(tmp_path / "report") == first  # nothing has changed
    (tmp_path / "report" / "more.html").unlink()
    second = exports.publish(report(tmp_path / "report", index="two"))
    assert second != first
    assert read(place, "report") == {"index.html": b"two"}
    assert len(place.listing()) == 2  # what nothing names any more is gone


def test_one_that_fails_leaves_the_version_before(s3: str, flaky: Proxy, tmp_path: Path) -> None:
    exports = Exports(RemoteFolders.at(s3, tmp_path / "known").patient(5))
    exports.publish(report(tmp_path / "report", index="one", more="one"))

    def refuse(method: str, path: str) -> Fate:
        return 403 if method == "PUT" and path.endswith("more.html") else None

    flaky.fate = refuse
    with pytest.raises(RemoteError, match=r"more\.html"):
        exports.publish(report(tmp_path / "report", index="two", more="two"))
    flaky.fails(0, None)
    assert read(Place(s3), "report") == {"index.html": b"one", "more.html": b"one"}
    exports.publish(tmp_path / "report")
    assert read(Place(s3), "report") == {"index.html": b"two", "more.html": b"two"}


def test_a_file_is_published_in_a_folder_of_its_name(exports: Exports, tmp_path: Path) -> None:
    assert exports.remote is not None
    path = tmp_path / "dolly_selection.jsonl"
    path.write_text("{}\n")
    assert exports.publish(path)
    assert read(exports.remote.place, "dolly_selection") == {"dolly_selection.jsonl": b"{}\n"}


def test_what_holds_examples_is_forgotten(exports: Exports, tmp_path: Path) -> None:
    assert exports.remote is not None
    for name in ("dolly_selection.jsonl", "selection.jsonl", "quality_rule.json"):
        (tmp_path / name).write_text(name)
        exports.publish(tmp_path / name)
    exports.publish(report(tmp_path / "report", index="a text"))
    assert exports.forget("report", "*selection") == ["dolly_selection", "report", "selection"]
    left = exports.remote.place.listing()
    assert {name.split("/")[0] for name in left} == {"quality_rule", ".removed"}
    assert all(entry.size == 0 for name, entry in left.items() if name.startswith(".removed"))
    exports.publish(tmp_path / "selection.jsonl")  # made again by the next run
    assert read(exports.remote.place, "selection") == {"selection.jsonl": b"selection.jsonl"}


def test_a_reader_fetches_a_checked_copy(
    exports: Exports, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exports.remote is not None
    exports.publish(report(tmp_path / "report", index="one"))
    out = tmp_path / "out"
    assert main([f"{url}/report", str(out)]) == 0
    assert (out / "index.html").read_text() == "one"
    exports.publish(report(tmp_path / "report", index="two"))
    assert main([f"{url}/report", str(out)]) == 0
    assert (out / "index.html").read_text() == "two"
    capsys.readouterr()
    assert main([f"{url}/nothing", str(tmp_path / "none")]) == 1
    assert "nothing is published at" in capsys.readouterr().err
    assert main([f"{url}/report", str(tmp_path / "report")]) == 1
    assert "holds something else" in capsys.readouterr().err
    (name,) = [n for n in exports.remote.place.listing() if n.endswith("index.html")]
    exports.remote.place.write(name, b"not")
    assert main([f"{url}/report", str(tmp_path / "new")]) == 1
    assert f"{exports.remote.place.of(name)} does not match" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_command_line_writes_to_a_url_what_it_writes_to_a_folder(s3: str, tmp_path: Path) -> None:
    def write(folder: Path) -> Path:
        return report(folder, index="one") / "index.html"

    assert written_at(str(tmp_path / "report"), "a report", write).endswith("report/index.html")
    page = written_at(f"{s3}/mine/", "a report", write)
    assert page.startswith(f"{s3}/mine/")
    assert page.endswith("/index.html")
    assert Place(page.rpartition("/")[0]).read("index.html") == b"one"
    assert written_at(f"{s3}/mine", "a report", write) == page
    with pytest.raises(FileExistsError, match=r"/mine is not of a dataset; choose a folder"):
        written_at(f"{s3}/mine", "a dataset", write)
    Place(s3).write("theirs/notes.txt", b"")
    with pytest.raises(FileExistsError, match=r"/theirs holds notes.txt, which is not of a report"):
        written_at(f"{s3}/theirs", "a report", write)
    with pytest.raises(FileExistsError, match=r"s3://mining is no folder; give one in it"):
        written_at("s3://mining", "a report", write)
