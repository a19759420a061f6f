"""The ledger: one row a content and target, in the order of landing."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from im_assets.candidates.reading import SourceError
from im_assets.landing.ledger import LandedFile, admitted, entries, record, source_of, store_of
from im_resources.study import DataSource, Study, load_study
from im_resources.warehouse import Warehouse

BYTES = b'{"instruction": "a", "output": "b"}\n'
FILE = LandedFile(
    number=1,
    landing=1,
    target="terse",
    sha256=hashlib.sha256(BYTES).hexdigest(),
    name="new.jsonl",
    file=f"{hashlib.sha256(BYTES).hexdigest()}.jsonl",
    bytes=len(BYTES),
    status="admitted",
    reason="",
    rows=3,
    usable=2,
    unusable_by_kind={"unreadable": 1},
)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    return load_study("demo")


def test_admitted_files_come_in_the_order_of_landing(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    assert admitted(warehouse, "terse") == []
    second = replace(FILE, number=2, sha256="2", name="é\\udcff|<b>.csv")
    rejected = replace(FILE, number=3, sha256="3", status="rejected", reason="empty")
    for entry in (rejected, second, FILE, replace(FILE, number=4, target="howto")):
        record(warehouse, entry)
    assert admitted(warehouse, "terse") == [FILE, second]
    assert [entry.number for entry in entries(warehouse)] == [1, 2, 3, 4]


def test_what_was_rejected_is_admitted_when_it_lands_again(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    record(warehouse, replace(FILE, status="rejected", reason="empty"))
    record(warehouse, again := replace(FILE, number=2, landing=2))
    assert entries(warehouse) == [again]


def test_an_admitted_file_is_read_like_its_target_and_whole(study: Study) -> None:
    path = store_of(study) / FILE.file
    path.parent.mkdir(parents=True)
    path.write_bytes(BYTES)
    limited = DataSource(hub="some/data", format="dolly", limit=1)
    data = study.data.model_copy(update={"candidates": {"terse": limited}})
    source = source_of(FILE, study.model_copy(update={"data": data}))
    assert (source.path, source.hub, source.limit) == (str(path), None, None)
    assert source.format == "dolly"


def test_a_lost_or_damaged_file_is_told_with_what_to_do(study: Study) -> None:
    with pytest.raises(SourceError, match=r"'new\.jsonl' cannot be read.*land it again"):
        source_of(FILE, study)
    path = store_of(study) / FILE.file
    path.parent.mkdir(parents=True)
    path.write_bytes(BYTES.replace(b"a", b"c"))
    with pytest.raises(SourceError, match=r"is damaged.*land that again"):
        source_of(FILE, study)
