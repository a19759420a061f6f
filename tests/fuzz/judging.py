"""What has to hold of every input: one clear error, or rows of which none is lost or invented."""

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from im_assets.candidates.csv_records import delimiter_of
from im_assets.candidates.reading import SourceError, read_source
from im_resources.study import DataSource, ProfileError, load_study
from tests.fuzz.inputs import DataInput, Input

LONGEST_MESSAGE = 6000


def examine(given: Input, folder: Path) -> str:
    """Read the input: "read" or "refused". Raises what is raised, and AssertionError, otherwise."""
    if not isinstance(given, DataInput):
        path = folder / "study.yaml"
        path.write_bytes(given.content)
        try:
            load_study(str(path))
        except ProfileError as error:
            return _clear(str(error), "")
        return "read"
    path = folder / given.name
    path.write_bytes(given.content)
    source = DataSource.model_validate({"path": str(path), **given.settings})
    try:
        rows, rejected = read_source("mine", source)
    except SourceError as error:
        return _clear(str(error), path.name)
    finally:
        path.unlink()
    every_row_is_there(given, rows, rejected)
    return "read"


def unpacked(content: bytes, packing: str) -> bytes:
    """What gzip or zstd packed."""
    if packing == "gz":
        return gzip.decompress(content)
    return pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()


def _clear(message: str, named: str) -> str:
    message.encode()
    assert named in message
    assert message.isprintable() or "\n" in message
    assert len(message) < LONGEST_MESSAGE, f"a message of {len(message)} characters"
    return "refused"


def every_row_is_there(given: DataInput, rows: pd.DataFrame, rejected: pd.DataFrame) -> None:
    """Raises AssertionError unless each row of the file is kept or rejected, once, as it is."""
    kept, bad = rows["line"].tolist(), rejected["line"].tolist()
    assert kept == sorted(set(kept)), "lines kept twice, or out of order"
    assert bad == sorted(set(bad)), "lines rejected twice, or out of order"
    assert not set(kept) & set(bad), "lines kept and rejected"
    for frame in (rows, rejected):
        frame.to_json(force_ascii=False).encode()
    content, kind = given.content, given.name.removeprefix("rows.")
    kind, _, packing = kind.partition(".")
    if packing:
        content = unpacked(content, packing)
    found = sorted({*kept, *bad})
    if kind in ("csv", "tsv"):
        _lines_account(content, rows, rejected, "\t" if kind == "tsv" else None)
    elif kind == "parquet":
        assert found == list(range(1, pq.read_metadata(io.BytesIO(content)).num_rows + 1))
    elif kind == "json":
        sys.set_int_max_str_digits(0)
        text = content.decode("utf-8-sig", "surrogateescape")
        assert found == list(range(1, len(json.loads(text)) + 1))
    else:
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        texts = [line.decode("utf-8", "surrogateescape") for line in lines]
        assert found == [n for n, text in enumerate(texts, 1) if text.strip()]
        _as_written(rows, texts, given.settings)


def _as_written(rows: pd.DataFrame, lines: list[str], settings: dict[str, Any]) -> None:
    """Kept rows of one column a field say what their lines say."""
    columns = {"alpaca": "output", "dolly": "response", "fields": "a"}
    if column := columns.get(str(settings.get("format"))):
        for line, output in zip(rows["line"], rows["output"], strict=True):
            assert json.loads(lines[line - 1])[column] == output


def _lines_account(
    content: bytes, rows: pd.DataFrame, rejected: pd.DataFrame, delimiter: str | None
) -> None:
    """The lines from one row's first to the next one's are that row, and nothing else."""
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = [line + "\n" for line in text.split("\n")]
    delimiter = delimiter or delimiter_of(lines[:50])
    starts = sorted([*rows["line"], *rejected["line"]])
    kept = dict(zip(rows["line"], rows.to_dict("records"), strict=True))
    assert _records(lines[: starts[0] - 1], delimiter) in (None, 1), "rows before the first"
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        block = lines[start - 1 : end - 1]
        while len(block) > 1 and not block[-1].strip("\r\n"):
            block.pop()  # blank lines between rows
        count = _records(block, delimiter)
        assert count == 1 or (start not in kept and len(block) == 1), f"lines lost after {start}"
        if start in kept:
            cells = next(csv.reader(block, strict=True, delimiter=delimiter))
            texts = {cell.strip() for cell in cells}
            field = kept[start]["instruction"].strip()
            assert field in texts or any(c in "[{" for c in "".join(cells)), "a row made up"


def _records(lines: list[str], delimiter: str) -> int | None:
    """How many rows the lines are to a strict parser; None when it fails."""
    try:
        return sum(1 for row in csv.reader(lines, strict=True, delimiter=delimiter) if row)
    except csv.Error:
        return None
