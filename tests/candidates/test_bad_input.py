"""Damaged and wrong input: what is lost, and whether the message tells a user what to do."""

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from im_assets.candidates.reading import SourceError, read_source
from im_resources.study import PROJECT_ROOT, DataSource
from tests.candidates.files_for_tests import KINDS, write_rows

GOOD = b'{"instruction": "a", "output": "b"}\n'


def _read(path: Path, **settings: object) -> tuple[list[int], dict[int, str]]:
    """(lines kept, reason by rejected line)"""
    source = DataSource.model_validate({"path": str(path), **settings})
    rows, rejected = read_source("mine", source)
    return rows["line"].tolist(), dict(zip(rejected["line"], rejected["reason"], strict=True))


def _message(path: Path, **settings: object) -> str:
    with pytest.raises(SourceError) as caught:
        _read(path, **settings)
    assert "source 'mine'" in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"instruction": "a", "output": ', "bad JSON"),
        (b"[" * 200_000, "bad JSON"),
        (b'["a", "b"]', "not an object with fields but list"),
        (b'{"instruction": "a"}', "field 'output' is missing"),
        (b'{"instruction": "a", "output": null}', "field 'output' is missing"),
        (b'{"instruction": "a", "output": 7}', "field 'output' is not text but int"),
        (b'{"instruction": "a", "output": "caf\xe9"}', "invalid UTF-8"),
        (b'{"instruction": "a", "output": "\\ud83d"}', "half a surrogate pair"),
    ],
)
def test_a_bad_line_is_rejected_and_the_rest_is_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    kept, rejected = _read(path)
    assert kept == [1, 3]
    assert reason in rejected[2]


def test_excerpts_can_always_be_stored(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b'{"instruction": "a", "output": "caf\xe9' + b"x" * 5000 + b'"}\n')
    _, rejected = read_source("mine", DataSource(path=str(path)))
    excerpt = rejected["excerpt"][0]
    assert len(excerpt.encode()) <= 210
    assert "instruction" in excerpt


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv"])
def test_a_50_mb_line_is_skipped_without_holding_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    head = b"instruction,output\na,b\n" if kind == "csv" else GOOD
    tail = b"a,b\n" if kind == "csv" else GOOD
    with gzip.open(path, "wb", 1) if kind.endswith(".gz") else path.open("wb") as file:
        file.write(head)
        for _ in range(50):
            file.write(os.urandom(500_000).hex().encode())
        file.write(b"\n" + tail)
    tracemalloc.start()
    kept, rejected = _read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    long = 3 if kind == "csv" else 2
    assert kept == [long - 1, long + 1]
    assert "50.0 MB" in rejected[long]
    assert "at most 10 MB" in rejected[long]
    assert peak < 40e6


@pytest.mark.parametrize("kind", KINDS)
def test_missing_file(tmp_path: Path, kind: str) -> None:
    message = _message(tmp_path / f"rows.{kind}")
    assert "no such file" in message
    assert "`path`" in message


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    assert "is a folder" in _message(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.gz", "rows.xlsx.gz"])
def test_unknown_kind_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD)
    message = _message(tmp_path / name)
    assert ".json, .jsonl, .csv, .tsv, .parquet, each also with .gz or .zst" in message
    assert ".gz" in message


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_field_mapping_shows_columns_and_the_close_one(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path, kind, [{"question": "a", "answer": "b"}] * 3)
    fields = {"instruction": "question", "output": "answers"}
    message = _message(path, format="fields", fields=fields)
    assert "'answers'" in message
    assert "did you mean 'answer'?" in message
    assert "question, answer" in message


def test_wrong_format_names_the_missing_field(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "jsonl", [{"instruction": "a", "response": "b"}])
    message = _message(path, format="alpaca")
    assert "'output'" in message
    assert "format: alpaca" in message


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith(".gz")])
def test_truncated_gzip_says_where_it_ends(tmp_path: Path, kind: str) -> None:
    rows = [{"instruction": os.urandom(400).hex(), "output": "b"} for _ in range(300)]
    path = write_rows(tmp_path, kind, rows)
    path.write_bytes(path.read_bytes()[:-20_000])
    message = _message(path)
    assert "truncated gzip" in message
    assert "after line" in message
    if kind == "jsonl.gz":
        assert "after line 0" not in message


def test_not_gzip_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(GOOD)
    assert "without .gz" in _message(path)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "parquet" not in kind])
def test_empty_source(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(gzip.compress(b"") if kind.endswith(".gz") else b"")
    assert "empty" in _message(path)


def test_json_faults_name_the_line_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(GOOD + GOOD)
    message = _message(path)
    assert "at line 2" in message
    assert ".jsonl" in message
    path.write_text('{"data": []}')
    assert "expected a JSON list" in _message(path)


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 this is not it")
    assert "rows.parquet" in _message(path)


def test_csv_rows_with_too_many_or_too_few_cells(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('instruction,output\na,b\na,b,c\na\n"two\nlines",b\n')
    kept, rejected = _read(path)
    assert kept == [2, 5]
    assert "more fields than the header (3, not 2)" in rejected[3]
    assert "fewer fields than the header (1, not 2)" in rejected[4]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no user turn"),
        ([{"role": "assistant", "content": "hi"}], "no user turn"),
        ([{"role": "user", "content": "hi"}], "no reply"),
        (["hi"], "not a list of turns"),
        ("hi", "neither a list nor JSON"),
        ([{"role": "user", "content": [{"type": "image"}]}], "'messages.content' is not text"),
    ],
)
def test_conversations_without_an_exchange(tmp_path: Path, turns: object, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": turns}))
    kept, rejected = _read(path, format="messages")
    assert kept == []
    assert reason in rejected[1]


def test_a_hub_dataset_while_offline() -> None:
    code = (
        "from im_assets.candidates.reading import read_source\n"
        "from im_resources.study import DataSource\n"
        "read_source('mine', DataSource(hub='someone/some-data'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        cwd=PROJECT_ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    message = done.stderr.splitlines()[-1]
    assert "SourceError: source 'mine': hub dataset 'someone/some-data' can't be reached" in message
    assert "HF_HUB_OFFLINE" in message
    assert "`path`" in message
