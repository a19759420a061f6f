"""Reads one data source, a local file or a Hugging Face dataset, into a frame.

A row that cannot be used is not an error: it is returned beside the good ones with the reason, and
ends in quarantine. A source that cannot be used as a whole raises `SourceError`.
"""

import reprlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from im_assets.candidates.files import (
    Fault,
    Record,
    SourceError,
    declared_columns,
    read_records,
    source_files,
)
from im_assets.candidates.format_registry import NOT_TEXT, VERIFIABLE, FormatError, RowReader
from im_assets.candidates.rows import RowError
from im_assets.candidates.sampling import Sample
from im_assets.candidates.tracing import OWN_ID
from im_assets.common.tracking import tracked
from im_resources.study import DataSource, did_you_mean
from im_resources.turns import TURNS

__all__ = [
    "REJECTED_COLUMNS", "ROW_COLUMNS", "Reading", "Rejected", "SourceError", "excerpt_of", "read",
    "read_source", "stream",
]  # fmt: skip

ROW_COLUMNS = ["source", "line", "instruction", "input", "output", "category"]
REJECTED_COLUMNS = ["source", "line", "kind", "reason", "excerpt"]
UNREADABLE = "unreadable"  # the kind of every reason that is given here
_SHOWN_COLUMNS = 30
_SHORT = reprlib.Repr()  # of any row, however deep or long
_SHORT.maxdict, _SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 8, 4, 150, 150


class Rejected(NamedTuple):
    """A row that cannot be used: where it is, and why."""

    source: str
    line: int
    kind: str
    reason: str
    excerpt: str
    file: str
    own_id: str | None


class Reading(NamedTuple):
    """What a source gave: usable rows, rejected ones, and how many usable ones it has in all.

    ``usable`` is None where reading ended at the source's ``limit``.
    """

    rows: pd.DataFrame
    rejected: pd.DataFrame
    usable: int | None


def read_source(
    name: str,
    source: DataSource,
    extra: Mapping[str, str] | None = None,
    verifiable: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a source and the rejected ones, as from `read`."""
    found = read(name, source, extra, verifiable)
    return found.rows, found.rejected


def read(
    name: str,
    source: DataSource,
    extra: Mapping[str, str] | None = None,
    verifiable: bool = False,
) -> Reading:
    """Read a source into memory.

    Args:
        name: the source's name in the profile; becomes the column ``source``.
        source: place, format and limit. Of a sample, ``limit`` counts different usable rows, of the
            first, rows of the file.
        extra: columns of the source that are kept beside the fields, "number" or "text" each.
        verifiable: also read what is right, the columns ``answer`` and ``pattern``.

    Returns:
        rows has `ROW_COLUMNS`, ``file`` (see `source_files`; of the hub, the
        dataset's id) and ``own_id``, with ``outputs`` (a list of str) in place of
        ``output`` when ``source.outputs`` is set, and the extra columns (float64, nan where there
        is no number; text, None where there is none). Where some row has them, also ``turns`` (JSON
        of a conversation, NULL elsewhere) and ``not_text`` (counts by kind of what was left out).
        rejected has `REJECTED_COLUMNS`, ``file`` and ``own_id``. Every row of the source that is
        not blank is in exactly one of them, except usable ones that a sample leaves out. ``line``
        is 1-based: the line of JSONL, that which a row of CSV begins on, the position in JSON,
        Parquet and hub datasets.

    Raises as `stream`.
    """
    extra = extra or {}
    rows: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    usable = stream(name, source, rows.append, rejected.append, extra, verifiable)
    columns = [c if c != "output" or not source.outputs else "outputs" for c in ROW_COLUMNS]
    columns += ("file", OWN_ID, *extra, *(VERIFIABLE if verifiable else ()))
    columns += [column for column in (TURNS, NOT_TEXT) if any(column in row for row in rows)]
    kinds = {c: "float64" if kind == "number" else "object" for c, kind in extra.items()}
    return Reading(
        pd.DataFrame(rows, columns=columns).astype({"line": "int64"} | kinds),
        pd.DataFrame(rejected, columns=list(Rejected._fields)).astype({"line": "int64"}),
        usable,
    )


def stream(
    name: str,
    source: DataSource,
    keep: Callable[[dict[str, Any]], object],
    reject: Callable[[Rejected], object],
    extra: Mapping[str, str] | None = None,
    verifiable: bool = False,
) -> int | None:
    """Read a source a row at a time; only what a sample takes is held.

    Args:
        name, source, extra, verifiable: as for `read`.
        keep: is given each row as a dict of the columns that it has.
        reject: is given each row that cannot be used.

    Returns:
        How many usable rows the source has, as in `Reading`.

    Raises:
        SourceError: missing or damaged file, a pattern that no file matches, unknown kind,
            unreachable hub, no row with a mapped field, no rows at all, or a format that fails.
            What is wrong with the source as a whole is known at its end.
        FormatError: an unknown format.
    """
    extra = extra or {}
    reader = RowReader(source, extra, verifiable)
    kept = rejected = 0
    sample = None
    if source.limit is not None and source.take == "sample":
        sample = Sample(source.limit, source.sample_seed)
    most = source.limit if source.take == "first" else None
    found: dict[str, None] = {}  # the columns of all rows, in the order of appearance
    try:
        files = source_files(source)
        place = ", ".join(map(str, files)) or f"hub dataset {source.hub!r}"
        path_of = {file: path for path, file in files.items()}
        records = islice(_records(source, files, reader), most)
        for file, (line, row) in tracked(records, f"reading {name}", "rows"):
            if isinstance(row, Fault):
                excerpt = excerpt_of(row.excerpt)
                reject(Rejected(name, line, UNREADABLE, row.reason, excerpt, file, None))
                rejected += 1
                continue
            if isinstance(row, dict):
                found |= dict.fromkeys(column for column, value in row.items() if value is not None)
            try:
                parsed = {"source": name, "line": line, "file": file} | reader.parse(row)
            except RowError as error:
                reason = excerpt_of(str(error), 400)
                excerpt = excerpt_of(_SHORT.repr(row))
                own_id = reader.own_id(row)
                reject(Rejected(name, line, UNREADABLE, reason, excerpt, file, own_id))
                rejected += 1
                continue
            except FormatError as error:
                raise SourceError(f"line {line} of {path_of.get(file, place)}: {error}") from error
            kept += 1
            keep(parsed) if sample is None else sample.add(parsed)
    except SourceError as error:
        raise SourceError(f"source {name!r}: {error}") from error
    if not kept and not rejected:
        raise SourceError(f"source {name!r}: {place} is empty; give a file with at least one row")
    needed = dict.fromkeys(sorted(reader.required), f"`format: {source.format}`")
    needed |= dict.fromkeys(sorted(extra), "an indicator of the profile")
    if missing := next((column for column in needed if column not in found), None):
        names = list(found | {column: None for path in files for column in declared_columns(path)})
        if names:  # else no row was one: each says why in quarantine
            raise SourceError(_no_column(name, place, missing, names, needed[missing]))
    for row in () if sample is None else sample.rows():
        keep(row)
    # Whether there are more than the first is not known.
    return None if most is not None and kept + rejected >= most else kept


def excerpt_of(text: str, width: int = 200) -> str:
    """The start of a text on one line, safe to store: what is not Unicode becomes ``?``."""
    text = " ".join(text[: 2 * width].encode("utf-8", "replace").decode().split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _no_column(name: str, place: str, column: str, names: list[str], by: str) -> str:
    names = [excerpt_of(other, 100) for other in names if other != column]
    names = [other if other.isprintable() else repr(other)[1:-1] for other in names]
    hint = did_you_mean(column, names[:1000])
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return (
        f"source {name!r}: no row of {place} has the field {column!r}, which "
        f"{by} reads{hint} (columns found: {', '.join(names[:_SHOWN_COLUMNS])}{more}); correct "
        "`format`, `fields`, `outputs` or the indicator's options in the profile"
    )


def _records(
    source: DataSource, files: Mapping[Path, str], reader: RowReader
) -> Iterator[tuple[str, Record]]:
    """The rows of all files, or of the hub's dataset, each with the name of its file."""
    if not files:
        yield from zip(repeat(str(source.hub)), _hub_records(source))
    for path, file in files.items():
        yield from zip(
            repeat(file), read_records(path, reader.columns, source.max_line_mb, source.delimiter)
        )


def _hub_records(source: DataSource) -> Iterator[Record]:
    import datasets  # seconds to import, and only hub sources need it

    where = f"hub dataset {source.hub!r}"
    try:
        dataset = datasets.load_dataset(
            source.hub, source.config, split=source.split, revision=source.revision
        )
    except datasets.exceptions.DatasetNotFoundError as error:
        raise SourceError(f"{where} does not exist or is not public: {error}") from error
    except ConnectionError as error:
        raise SourceError(
            f"{where} can't be reached, and is not in the local cache: {error}. Without a network "
            "(or with HF_HUB_OFFLINE set), give a local file as `path` instead of `hub`"
        ) from error
    except ValueError as error:  # unknown configuration or split; the message lists the known ones
        raise SourceError(f"{where}: {error}") from error
    yield from enumerate(dataset, start=1)
