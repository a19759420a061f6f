"""Files that are not what they seem, or made to do harm: one clear error, in bounded memory."""

import codecs
import gzip
import json
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from im_assets.candidates.reading import SourceError, read_source
from im_resources.study import DataSource, ProfileError
from tests.candidates.files_for_tests import KINDS, write_rows

GOOD = b'{"instruction": "a", "output": "b"}\n'


def read(path: Path, **settings: Any) -> tuple[list[int], dict[int, str]]:
    """(lines kept, reason by line rejected)"""
    source = DataSource.model_validate({"path": str(path), **settings})
    rows, rejected = read_source("mine", source)
    return rows["line"].tolist(), dict(zip(rejected["line"], rejected["reason"], strict=True))


def message(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# -- not what the name says ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", gzip.compress(GOOD, mtime=0), "holds gzip data, name it a.jsonl.gz"),
        ("a.json", b"PAR1" + bytes(40), "holds Parquet data, name it a.parquet"),
        ("a.csv.gz", gzip.compress(b"PAR1" + bytes(40), mtime=0), "name it a.parquet.gz"),
        ("a.csv", GOOD, "holds JSON; name it a.jsonl"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd" + bytes(9), "holds zstd data, name it a.jsonl.zst"),
        ("a.json", b"PK\x03\x04" + bytes(9), "a zip archive or an office document"),
        (
            "a.jsonl.gz",
            gzip.compress(gzip.compress(GOOD, mtime=0), mtime=0),
            "packed twice: unpack it once",
        ),
        ("a.jsonl.gz", b"PAR1" + bytes(40), "holds Parquet data, name it a.parquet"),
        (
            "a.jsonl.gz",
            gzip.compress(bytes(257) + b"ustar" + bytes(90), mtime=0),
            "holds a tar archive",
        ),
        ("a.jsonl", GOOD.decode().encode("utf-16"), "holds UTF-16 text; save it as UTF-8"),
        ("a.jsonl", GOOD.decode().encode("utf-16-le"), "holds UTF-16LE text"),
        ("a.csv", b"instruction,output".decode().encode("utf-16-be"), "holds UTF-16BE text"),
        ("a.json", GOOD.decode().encode("utf-32"), "holds UTF-32 text"),
        ("a.jsonl", b"<!DOCTYPE html><html>", "holds a web page"),
        ("a.parquet", GOOD, "is no Parquet file"),
    ],
)
def test_a_file_is_known_by_its_content(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in message(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_what_its_name_says(tmp_path: Path, kind: str) -> None:
    assert read(write_rows(tmp_path, kind, [{"instruction": "a", "output": "b"}]))[1] == {}


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_the_mark_of_utf_8_is_no_content(tmp_path: Path, kind: str) -> None:
    path = write_rows(tmp_path, kind, [{"instruction": "a", "output": "b"}])
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert len(read(path)[0]) == 1


def test_the_mark_of_utf_8_does_not_hide_that_a_line_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + GOOD.replace(b"b", b"b" * 50) + GOOD)
    kept, rejected = read(path, max_line_mb=0.00005)
    assert kept == [2]
    assert "line too long" in rejected[1]


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is a pipe (FIFO), not a file" in message(tmp_path / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.jsonl"))
        assert "is a socket, not a file" in message(tmp_path / "socket.jsonl")
    (tmp_path / "device.jsonl").symlink_to("/dev/zero")
    with pytest.raises(SourceError, match=r"zero: unknown file kind"):
        read(tmp_path / "device.jsonl")


@pytest.mark.parametrize("name", ["loop.jsonl", "zero\0byte.jsonl"])
def test_a_path_that_leads_nowhere_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    with pytest.raises(ProfileError, match=r"path '.*jsonl' cannot be used"):
        read(tmp_path / name)


# -- bombs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("json.gz", b"["),
        ("jsonl.gz", b""),
        ("csv.gz", b"instruction,output\n"),
        ("parquet.gz", b"PAR1"),
    ],
)
def test_a_gzip_bomb_is_refused_before_it_unpacks(tmp_path: Path, kind: str, start: bytes) -> None:
    path = tmp_path / f"bomb.{kind}"
    with gzip.open(path, "wb") as file:
        file.write(start)
        for _ in range(40):
            file.write(b" " * 1_000_000)
    tracemalloc.start()
    said = message(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
    assert "as a compression bomb does" in said


def test_what_is_only_well_compressed_is_read(tmp_path: Path) -> None:
    row = json.dumps({"instruction": "a", "output": "b" * 2000}).encode() + b"\n"
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(row * 5000))
    assert len(read(path)[0]) == 5000


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_number_too_long_for_python_matters_only_where_it_is_read(
    tmp_path: Path, kind: str
) -> None:
    rows = ['{"instruction": "a", "output": "b", "n": 1}', '{"instruction": "a", "output": "b"}']
    rows[1] = rows[1].replace("}", ', "n": ' + "9" * 5000 + "}")
    path = tmp_path / f"rows.{kind}"
    path.write_text("\n".join(rows) if kind == "jsonl" else f"[{','.join(rows)}]")
    assert read(path) == ([1, 2], {})
    kept, rejected = read_source("mine", DataSource(path=str(path)), {"n": "number"})
    assert kept["line"].tolist() == [1]
    assert "field 'n' is no finite number: inf" in rejected["reason"][0]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_key_given_twice_is_a_bad_row(tmp_path: Path, kind: str) -> None:
    good = GOOD.decode().strip()
    twice = '{"instruction": "a", "output": "b", "output": "c"}'
    path = tmp_path / f"rows.{kind}"
    rows = [good, twice, good]
    path.write_text("\n".join(rows) if kind == "jsonl" else f"[{','.join(rows)}]")
    assert read(path) == ([1, 3], {2: "the key 'output' is given twice"})


def test_deep_nesting_in_a_column_of_text_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": "a", "outputs": outputs} for outputs in ("[" * 100_000, ["b"])]
    path.write_text("\n".join(map(json.dumps, rows)))
    kept, rejected = read(path, outputs="outputs")
    assert kept == [2]
    assert "nested too deeply" in rejected[1]


def test_a_deep_row_can_be_rejected_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"instruction": ' + b"[" * 900 + b"]" * 900 + b"}\n" + GOOD)
    assert read(path) == ([2], {1: "field 'instruction' is not text but list"})


def test_a_deep_list_is_one_error_that_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"[{}," + b"[" * 100_000)
    assert "row 2 is nested too deeply" in message(path)


def test_names_of_columns_are_shown_readably_and_not_all_of_thousands(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {f"column {i}": "x" for i in range(5000)}
    path.write_bytes(b'{"\xff\\u202e": 1, ' + json.dumps(row).encode()[1:] + b"\n")
    said = message(path)
    said.encode()
    assert len(said) < 2000
    assert "\u202e" not in said
    assert "and 4971 more" in said


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"instruction": "a", "output": "b", "n": "9a" * 100_000}
    path.write_text(json.dumps(row))
    _, rejected = read_source("mine", DataSource(path=str(path)), {"n": "number"})
    assert len(rejected["reason"][0]) < 200
