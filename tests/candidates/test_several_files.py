"""A source of several files: named one by one, or by a pattern; each row keeps its file."""

import json
from pathlib import Path

import pytest

from im_assets.candidates.files import SourceError, source_files
from im_assets.candidates.reading import read_source
from im_resources.study import DataSource
from tests.candidates.files_for_tests import write_rows


def rows(*names: str) -> list[dict[str, str]]:
    return [{"instruction": f"What is {name}?", "output": f"It is {name}."} for name in names]


def write(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(*names)), encoding="utf-8")
    return path


def test_a_pattern_reads_every_file_in_order_and_each_row_keeps_its_own(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", "tin", "zinc")
    write(tmp_path / "a.jsonl", "iron")
    write(tmp_path / "notes.txt", "no data")
    (tmp_path / "folder.jsonl").mkdir()  # is no file
    found, rejected = read_source("mine", DataSource(path=f"{tmp_path}/*.jsonl"))
    assert found[["file", "line", "instruction"]].to_numpy().tolist() == [
        ["a.jsonl", 1, "What is iron?"],
        ["b.jsonl", 1, "What is tin?"],
        ["b.jsonl", 2, "What is zinc?"],
    ]
    assert rejected.empty


def test_a_list_keeps_its_order_and_mixes_kinds(tmp_path: Path) -> None:
    first = write_rows(tmp_path, "csv", rows("tin"))
    second = write_rows(tmp_path, "jsonl.gz", rows("iron"))
    source = DataSource(path=(str(first), str(second), f"{tmp_path}/*.csv"))
    found, _ = read_source("mine", source)
    assert found["file"].tolist() == [first.name, second.name]  # each file once


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("2024/may", "2025"):
        write(tmp_path / folder / "part.jsonl", folder)
    found, _ = read_source("mine", DataSource(path=f"{tmp_path}/**/part.jsonl"))
    assert found["file"].tolist() == ["2024/may/part.jsonl", "2025/part.jsonl"]


def test_a_file_that_is_named_like_a_pattern_is_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "part[1].jsonl", "tin")
    write(tmp_path / "part1.jsonl", "iron")
    assert list(source_files(DataSource(path=str(path)))) == [path]


def test_a_limit_counts_over_all_files(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.jsonl", f"{name}1", f"{name}2")
    found, _ = read_source("mine", DataSource(path=f"{tmp_path}/*.jsonl", limit=3, take="first"))
    assert found["file"].tolist() == ["a.jsonl", "a.jsonl", "b.jsonl"]
    found, _ = read_source("mine", DataSource(path=f"{tmp_path}/*.jsonl", limit=3))
    assert len(found) == 3


def test_a_pattern_that_matches_nothing_stops_with_the_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "tin")
    source = DataSource(path=(f"{tmp_path}/*.jsonl", f"{tmp_path}/*.csv"))
    with pytest.raises(
        SourceError, match=r"source 'mine': no file matches the pattern '.*\*\.csv'"
    ):
        read_source("mine", source)


def test_a_missing_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", "tin")
    with pytest.raises(SourceError, match=r"gone\.jsonl: no such file"):
        read_source("mine", DataSource(path=(str(good), f"{tmp_path}/gone.jsonl")))
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(SourceError, match=r"b\.jsonl\.gz"):
        read_source("mine", DataSource(path=f"{tmp_path}/*"))


def test_a_bad_row_is_put_aside_with_its_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "tin")
    (tmp_path / "b.jsonl").write_text("{oops\n", encoding="utf-8")
    found, rejected = read_source("mine", DataSource(path=f"{tmp_path}/*.jsonl"))
    assert found["file"].tolist() == ["a.jsonl"]
    assert rejected[["file", "line"]].to_numpy().tolist() == [["b.jsonl", 1]]
