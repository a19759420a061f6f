"""Judging and admitting: what becomes part of a source, and what is rejected with which reason."""

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from im_assets.candidates.reading import read_source
from im_assets.landing import admitting
from im_assets.landing.admitting import Landing, land
from im_assets.landing.assets import targets
from im_assets.landing.folder import LandingError
from im_assets.landing.ledger import admitted, entries, source_of, store_of
from im_assets.landing.store import Store
from im_resources.study import Study
from im_resources.warehouse import Warehouse
from tests.landing.places import Place, landing_study, local, rows

REJECTED = [
    ("a.jsonl", b"", "a.jsonl is empty; give a file with at least one row"),
    ("a.txt", rows("a"), "unknown file kind; expected .json"),
    ("a", rows("a"), "unknown file kind"),
    ("a.jsonl.gz", rows("a"), "not gzip"),
    ("a.jsonl.gz", gzip.compress(rows("a"), mtime=0)[:-9], "truncated gzip"),
    ("a.parquet", b"PAR1 nothing", "a.parquet"),
    ("a.json", b"[1, 2", "not JSON"),
    ("a.jsonl", rows("a", "", ""), "1 of 3 rows can be used, and at least 50 %"),
    ("a.jsonl", b'{"question": "a", "answer": "b"}\n', "no row of a.jsonl has the field"),
]


def land_all(place: Place, study: Study, told: int = 0) -> Landing:
    folder, warehouse = place.folder, Warehouse(study.warehouse)
    return land(folder.look(targets(study)).arrivals, folder, study, warehouse, told)


def test_files_are_admitted_to_their_targets_in_order(place: Place) -> None:
    study = landing_study(place)
    place.put("terse/b.jsonl", rows("one", "two", ""))
    place.put("terse/a.JSONL.GZ", gzip.compress(rows("three")))
    place.put("terse/b.jsonl.done", b"")
    place.put("dolly/c.jsonl", b'{"instruction": "x", "context": "", "response": "y"}\n')
    landing = land_all(place, study)
    assert place.files() == {}
    assert [(e.number, e.name, e.rows, e.usable) for e in landing.entries] == [
        (1, "c.jsonl", 1, 1),
        (2, "a.JSONL.GZ", 1, 1),
        (3, "b.jsonl", 3, 2),
    ]
    assert landing.entries[2].unusable_by_kind == {"unreadable": 1}
    warehouse = Warehouse(study.warehouse)
    assert admitted(warehouse, "terse") == landing.entries[1:]
    found, _ = read_source("terse", source_of(admitted(warehouse, "terse")[0], study))
    assert found["instruction"].tolist() == ["three"]
    assert [entry.name for entry in admitted(warehouse, "dolly")] == ["c.jsonl"]
    assert sorted(p.name for p in store_of(study).glob("*.*") if p.is_file()) == sorted(
        [".lock", *(entry.file for entry in landing.entries)]
    )


@pytest.mark.parametrize(("name", "content", "reason"), REJECTED)
def test_what_cannot_be_used_is_rejected_with_a_readable_reason(
    place: Place, name: str, content: bytes, reason: str
) -> None:
    study = landing_study(place)
    place.put(f"terse/{name}", content)
    place.put("howto/good.jsonl", rows("good"))
    good, bad = land_all(place, study).entries
    assert (good.status, bad.status) == ("admitted", "rejected")
    assert reason in bad.reason
    assert str(store_of(study)) not in bad.reason
    moved = f"rejected/terse/{bad.sha256[:12]}-{name}"
    assert place.files().keys() == {moved, f"{moved}.reason.txt"}
    assert place.files()[moved] == content
    told = place.files()[f"{moved}.reason.txt"].decode()
    assert told.startswith(f"terse/{name} was not admitted to terse:\n{bad.reason}\n")
    assert admitted(Warehouse(study.warehouse), "terse") == []
    assert not list((store_of(study) / "incoming").iterdir())


def test_the_reason_names_the_first_rows_that_cannot_be_used(tmp_path: Path) -> None:
    place = local(tmp_path / "landing")
    place.put("terse/a.jsonl", b"\x1b[31m<script>\n" * 12)
    land_all(place, landing_study(place))
    (reason,) = [text for name, text in place.files().items() if name.endswith(".reason.txt")]
    lines = reason.decode().splitlines()
    assert lines[2].startswith("line 1: bad JSON")
    assert lines[-1] == "and 2 more"


def test_more_than_the_largest_size_is_rejected_and_never_copied(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = landing_study(place, max_megabytes=1)
    place.put("terse/a.jsonl", rows("a") * 40_000)
    monkeypatch.setattr(Store, "copied", None)
    (entry,) = land_all(place, study).entries
    assert entry.reason.startswith("2 MB, and at most 1 are read (landing.max_megabytes)")
    assert len(place.files()) == 2


def test_the_same_content_lands_once_whatever_its_name(place: Place) -> None:
    study = landing_study(place)
    place.put("terse/a.jsonl", rows("a"))
    place.put("terse/b.jsonl", rows("a"))
    landing = land_all(place, study)
    assert [entry.name for entry in landing.entries] == ["a.jsonl"]
    assert landing.known == {"terse/b.jsonl": "a.jsonl"}
    place.put("terse/c.jsonl", rows("a"))
    place.put("howto/a.jsonl", rows("a"))  # another source may hold it too
    landing = land_all(place, study, told=1)
    assert landing.known == {"terse/c.jsonl": "a.jsonl"}
    assert [(e.target, e.landing) for e in landing.entries] == [("howto", 2)]
    assert place.files() == {}
    assert len(entries(Warehouse(study.warehouse))) == 2


def test_what_was_admitted_stays_so_when_the_limits_become_stricter(place: Place) -> None:
    study = landing_study(place)
    place.put("terse/a.jsonl", content := rows("a") * 40_000)
    land_all(place, study)
    place.put("terse/a.jsonl", content)
    landing = land_all(place, landing_study(place, max_megabytes=1), told=1)
    assert (landing.entries, len(landing.known)) == ([], 1)


def test_a_lost_file_comes_back_when_it_lands_again(place: Place) -> None:
    study = landing_study(place)
    place.put("terse/a.jsonl", rows("a"))
    (entry,) = land_all(place, study).entries
    (store_of(study) / entry.file).unlink()
    place.put("terse/again.csv", rows("a"))
    land_all(place, study, told=1)
    assert (store_of(study) / entry.file).read_bytes() == rows("a")


def test_a_rejected_file_is_judged_again_when_it_lands_again(place: Place) -> None:
    place.put("terse/a.jsonl", rows("a", "", ""))
    land_all(place, landing_study(place))
    place.put("terse/a.jsonl", rows("a", "", ""))
    study = landing_study(place, usable_share=0.3)
    (entry,) = land_all(place, study, told=1).entries
    assert (entry.status, entry.number, entry.landing) == ("admitted", 2, 2)
    assert entries(Warehouse(study.warehouse)) == [entry]


def test_a_reader_that_fails_rejects_the_file_and_not_the_landing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise KeyError("who knows")

    study = landing_study(place)
    place.put("terse/a.jsonl", rows("a"))
    monkeypatch.setattr(admitting, "read_source", failing)
    (entry,) = land_all(place, study).entries
    assert entry.reason == "reading it failed: KeyError: 'who knows'"


def test_a_full_disk_rejects_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    study = landing_study(place)
    place.put("terse/a.jsonl", rows("a"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LandingError, match=r"terse/a.jsonl cannot be copied.*No space left"):
            land_all(place, study)
    assert place.files() == {"terse/a.jsonl": rows("a")}
    assert len(land_all(place, study).entries) == 1


def test_a_folder_that_nothing_can_be_taken_from_admits_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    study = landing_study(place)
    place.put("terse/a.jsonl", rows("a"))
    with monkeypatch.context() as patch:
        patch.setattr(type(place.folder), "_delete", denied)
        landing = land_all(place, study)
        assert "Permission denied" in landing.stuck["terse/a.jsonl"]
        with pytest.raises(LandingError, match="Permission denied"):
            land_all(place, study)
    assert len(entries(Warehouse(study.warehouse))) == 1
    assert land_all(place, study).known == {"terse/a.jsonl": "a.jsonl"}
