"""Local data files as a stream of rows: JSON lists, JSON lines, CSV and Parquet, each also gzip'd.

A fault in one row (bad JSON, a line too long to hold) is yielded as a `Fault` in that row's place,
so the caller can quarantine it and go on; a fault of the file raises `SourceError`. Bytes that are
not UTF-8 survive decoding as surrogates (``surrogateescape``) and are judged field by field later.
"""

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

MAX_LINE_BYTES = 10_000_000


class SourceError(ValueError):
    """A data source that cannot be used; says which, where, and what would be right."""


class Fault(NamedTuple):
    """Why one row cannot be read, and the start of it."""

    reason: str
    excerpt: str


Record = tuple[int, Any]  # (1-based line or row number, the parsed row or a Fault)


def read_records(path: Path) -> Iterator[Record]:
    """Stream the rows of a file, numbered by line (JSONL, CSV) or by position (JSON, Parquet).

    Raises:
        SourceError: no such file, unknown file kind, or the file is damaged as a whole; the message
            starts with the path and names the line where the reading stopped, if there is one.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if zipped else suffixes)[-1:]
    reader = _READERS.get(kind[0] if kind else "")
    if reader is None:
        raise SourceError(
            f"{path}: unknown file kind; expected {', '.join(_READERS)}, each also with .gz"
        )
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise SourceError(f"{path}: {what}; correct `path` in the profile")
    line = 0
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            for line, row in reader(file):
                yield line, row
    except EOFError as error:
        raise SourceError(
            f"{path}: truncated gzip file, it ends after line {line}; fetch or compress it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(
            f"{path}: damaged or not gzip after line {line} ({error}); fetch it again, or name it "
            "without .gz if it is not compressed"
        ) from error
    except (_NotRows, pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: {error}") from error


class _NotRows(ValueError):
    """A well-formed file that does not hold rows."""


def _json_list(file: IO[bytes]) -> Iterator[Record]:
    text = file.read().removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    if not text.strip():
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        hint = (
            "; one object a line is JSON lines: name it .jsonl" if _begins_with_json(text) else ""
        )
        raise _NotRows(f"not JSON: {error.msg} at line {error.lineno}{hint}") from error
    except RecursionError as error:
        raise _NotRows("not a list of rows: nested too deeply") from error
    if not isinstance(rows, list):
        raise _NotRows(f"expected a JSON list of rows, found a {type(rows).__name__}")
    yield from enumerate(rows, start=1)


def _begins_with_json(text: str) -> bool:
    """Whether a whole JSON value stands at the beginning, whatever follows it."""
    try:
        json.JSONDecoder().raw_decode(text.lstrip())
    except json.JSONDecodeError:
        return False
    return True


def _json_lines(file: IO[bytes]) -> Iterator[Record]:
    for number, line in _lines(file):
        if isinstance(line, Fault):
            yield number, line
        elif line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, Fault(f"bad JSON: {error}", line)


def _csv(file: IO[bytes]) -> Iterator[Record]:
    csv.field_size_limit(MAX_LINE_BYTES)  # the default of 128 KiB is shorter than real answers
    skipped: list[Record] = []

    def text_lines() -> Iterator[str]:
        for number, line in _lines(file):
            if isinstance(line, Fault):
                skipped.append((number, line))
                yield "\n"  # keeps the reader's own line count right
            else:
                yield line

    reader = csv.DictReader(text_lines())
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, Fault(f"bad CSV: {error}", "")
            continue
        yield from skipped
        skipped.clear()
        if row is None:
            return
        extra = row.pop(None, None)  # what DictReader could not name
        if extra is None:
            yield reader.line_num, row
        else:
            yield reader.line_num, Fault("bad CSV: more fields than the header", str(row))


def _parquet(file: IO[bytes]) -> Iterator[Record]:
    # Parquet is read from its end, which a gzip stream cannot do: it is unpacked in memory first.
    whole = pa.BufferReader(file.read()) if isinstance(file, gzip.GzipFile) else file
    number = 0
    for batch in pq.ParquetFile(whole).iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str | Fault]]:
    """Numbered lines; of one over MAX_LINE_BYTES no more than that is ever held in memory."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield number, line.decode("utf-8", "surrogateescape")
            continue
        excerpt = line[:1000].decode("utf-8", "replace")
        size = len(line)
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)
            size += len(line)
        limit = f"{MAX_LINE_BYTES / 1e6:g} MB"
        yield number, Fault(f"line too long: {size / 1e6:.1f} MB, at most {limit} is read", excerpt)


_READERS: dict[str, Callable[[Any], Iterator[Record]]] = {
    ".json": _json_list,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
