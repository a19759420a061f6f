"""Local data files as a stream of rows: JSON lists, JSON lines, CSV, TSV and Parquet, each also
packed by gzip or zstd.

A fault in one row (bad JSON, a line too long to hold) is yielded as a `Fault` in that row's place,
so the caller can quarantine it and go on; a fault of the file raises `SourceError`. Bytes that are
not UTF-8 survive decoding as surrogates (``surrogateescape``) and are judged field by field later.
A file is what its content is: one of another kind than its name says is refused with the right one.
"""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq

from im_assets.candidates.csv_records import csv_rows, first_delimiter
from im_assets.candidates.json_records import json_lines, json_list
from im_assets.candidates.parquet_records import MAX_UNPACKED_BYTES, parquet
from im_assets.candidates.recognizing import HEAD, wrong_content
from im_assets.candidates.records import (
    MAX_LINE_MB,
    BadValue,
    Fault,
    NotRows,
    Record,
    SourceError,
    whole_content,
)
from im_assets.candidates.unpacking import PACKINGS, DamagedZstd, Unpacked
from im_resources.study import DataSource, resolve_files, resolve_path

__all__ = [
    "BadValue", "Fault", "Record", "SourceError", "declared_columns", "delimiter_in",
    "read_records", "source_files",
]  # fmt: skip

KINDS = ".json", ".jsonl", ".csv", ".tsv", ".parquet"
_NO_FILES = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a pipe (FIFO)",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


def read_records(
    path: Path,
    columns: Collection[str] | None = None,
    max_line_mb: float = MAX_LINE_MB,
    delimiter: str | None = None,
) -> Iterator[Record]:
    """Stream the rows of a file, numbered by line (JSONL, CSV) or by position (JSON, Parquet).

    Args:
        path: of the file; its suffix says its kind.
        columns: those that are used; of Parquet, no other is read. None: all.
        max_line_mb: a longer line of JSONL, and a longer row of CSV, is a Fault.
        delimiter: what separates the fields of CSV and TSV; None: a tab in a .tsv file, and in a
            .csv file what its first lines show.

    Raises:
        SourceError: no such file, unknown file kind, or the file is damaged as a whole; the message
            starts with the path and names the line where the reading stopped, if there is one.
    """
    kind, _ = _kind(path)
    line = 0
    try:
        with _opened(path) as file:
            for line, row in _rows(kind, file, columns, max_line_mb, delimiter):
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
    except DamagedZstd as error:
        raise SourceError(
            f"{path}: truncated, damaged or not zstd after line {line} ({error}); fetch or "
            "compress it again, or name it without .zst if it is not compressed"
        ) from error
    except MemoryError as error:
        raise SourceError(
            f"{path}: not enough memory to read it after line {line}; split the file"
        ) from error
    except (NotRows, OSError) as error:
        raise SourceError(f"{path}: {error}") from error


def delimiter_in(path: Path) -> str | None:
    """What the first lines of a CSV file show to be between its fields; None of other kinds.

    Raises SourceError for no such file; NotRows or OSError for one that cannot be unpacked.
    """
    if (kind := _kind(path)[0]) not in (".csv", ".tsv"):
        return None
    with _opened(path) as file:
        return "\t" if kind == ".tsv" else first_delimiter(file)


def source_files(source: DataSource) -> dict[Path, str]:
    """The local files of a source in the order of reading, each once, with the name that its rows
    keep: the file's own, or among several its place below the folder that they share.

    Raises SourceError for a pattern that no file matches.
    """
    if source.path is None:
        return {}
    found: list[Path] = []
    for text in (source.path,) if isinstance(source.path, str) else source.path:
        files = resolve_files(text)
        if not files:
            raise SourceError(
                f"no file matches the pattern {text!r} ({resolve_path(text)}); correct `path` in "
                "the profile, or put the files there"
            )
        found += files
    files = list(dict.fromkeys(found))
    shared = Path(os.path.commonpath([file.parent for file in files]))
    names = (file.relative_to(shared).as_posix() for file in files)
    return {
        file: name.encode("utf-8", "replace").decode()
        for file, name in zip(files, names, strict=True)
    }


def declared_columns(path: Path) -> list[str]:
    """The columns that a file names by itself, as Parquet does; [] for the other kinds."""
    return list(pq.read_schema(path).names) if _kind(path) == (".parquet", "") else []


def _kind(path: Path) -> tuple[str, str]:
    """(suffix of the file's kind, that of its packing or ''). Raises SourceError for an unknown
    one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packing = suffixes.pop() if suffixes and suffixes[-1] in PACKINGS else ""
    if not suffixes or suffixes[-1] not in KINDS:
        also = " or ".join(PACKINGS)
        raise SourceError(
            f"{path}: unknown file kind; expected {', '.join(KINDS)}, each also with {also}"
        )
    return suffixes[-1], packing


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's content, unpacked. Raises SourceError, NotRows and what unpacking raises."""
    kind, packing = _kind(path)
    _check_regular(path)
    with ExitStack() as opened:
        file: IO[bytes] = opened.enter_context(path.open("rb"))
        _check_content(path, file, packing or kind)
        if packing:
            file = opened.enter_context(io.BufferedReader(Unpacked(file, packing), 1 << 16))
            _check_content(path, file, kind)
        yield file


def _check_regular(path: Path) -> None:
    """Raises SourceError for what is no file: opening a pipe would wait for its writer."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file; correct `path` in the profile") from error
    except (OSError, ValueError) as error:  # a loop of links, no permission, a zero byte
        raise SourceError(f"{path}: can't be opened: {error}") from error
    if not stat.S_ISREG(mode):
        what = _NO_FILES.get(stat.S_IFMT(mode), "is something else")
        raise SourceError(f"{path}: {what}, not a file; correct `path` in the profile")


def _check_content(path: Path, file: Any, suffix: str) -> None:
    if wrong := wrong_content(path, file.peek(HEAD)[:HEAD], suffix):
        raise NotRows(wrong)


def _rows(
    kind: str,
    file: IO[bytes],
    columns: Collection[str] | None,
    max_line_mb: float,
    delimiter: str | None,
) -> Iterator[Record]:
    if kind == ".jsonl":
        return json_lines(file, max_line_mb)
    if kind == ".json":
        return json_list(file)
    if kind == ".csv":
        return csv_rows(file, max_line_mb, delimiter)
    if kind == ".tsv":
        return csv_rows(file, max_line_mb, delimiter or "\t")
    if not file.seekable():  # Parquet is read from its end, which a packed stream cannot do
        remedy = "unpack it: Parquet is compressed by itself"
        return parquet(whole_content(file, MAX_UNPACKED_BYTES, remedy), None)
    return parquet(file, columns)
