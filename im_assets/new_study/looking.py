"""Looks at the first rows of a file: its columns, the format that fits, what it would leave out.

Formats are those of the registry, and rows are read as the study reads them: a proposal is put to
the test before it is made, and its figures are told.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from im_assets.candidates.csv_records import DELIMITERS
from im_assets.candidates.files import Fault, Record, SourceError, delimiter_in, read_records
from im_assets.candidates.format_registry import FORMATS, RowReader
from im_assets.candidates.languages import with_language
from im_assets.candidates.reading import excerpt_of
from im_assets.candidates.rows import RowError, listed
from im_assets.new_study.names import guess
from im_resources.study import DataSource

ROWS = 1000  # of a file that are looked at
LANGUAGES = 200  # rows whose language is told
FITS = 0.5  # share of the rows that a format has to read
_FIRST = ("messages", "sharegpt", "alpaca", "dolly")  # then what plugins have, then columns by name
_SHOWN = 40


class NoFormat(ValueError):
    """No format reads these rows; tells the columns, and what would do."""


@dataclass(frozen=True)
class Look:
    """A file as it was seen.

    Attributes:
        settings: how a profile has it read: ``format``, and ``fields`` or ``outputs``.
        guessed: the mapping was made by the names of the columns.
        rows: looked at; ``whole``: they are all that there are.
        usable: those that the format reads; ``faults``: the others, by reason.
        languages: of up to 200 usable rows, the most frequent first.
        length: median characters of instruction, input and output together.
    """

    path: Path
    columns: tuple[str, ...]
    settings: Mapping[str, Any]
    guessed: bool
    rows: int
    whole: bool
    usable: int
    faults: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    length: int = 0
    separated_by: str = ""


def look(path: Path, fields: Mapping[str, str], evaluation: bool = False) -> Look:
    """What the file is like.

    Args:
        fields: columns that the user named, by field; also ``outputs``. A file that has them all is
            read by them.
        evaluation: a column with a list of reference outputs is looked for, too.

    Raises:
        SourceError: absent, unreadable, empty, or of an unknown kind.
        NoFormat: no format reads at least half of the rows.
    """
    records = list(islice(read_records(path), ROWS + 1))
    whole, records = len(records) <= ROWS, records[:ROWS]
    if not records:
        raise SourceError(f"{path}: is empty; give a file with at least one row")
    columns = _columns(records)
    tried = [
        _read(path, settings, records, evaluation)
        for settings in _proposals(columns, records, fields, evaluation)
    ]
    best = max(tried, key=lambda read: len(read.usable), default=None)
    if best is None or len(best.usable) < FITS * len(records):
        raise NoFormat(_nothing_fits(path, columns, records, best))
    best, own = _with_id(path, best, columns, records, evaluation), best.settings
    delimiter = delimiter_in(path)
    return Look(
        path=path,
        columns=tuple(columns),
        settings=best.settings,
        guessed="fields" in own and not (fields and {*fields.values()} <= {*columns}),
        rows=len(records),
        whole=whole,
        usable=len(best.usable),
        faults=dict(best.faults.most_common()),
        languages=_languages(best.usable),
        length=round(statistics.median(map(_length, best.usable))),
        separated_by="" if delimiter is None else DELIMITERS[delimiter],
    )


@dataclass(frozen=True)
class _Reading:
    settings: dict[str, Any]
    usable: list[dict[str, Any]]
    faults: Counter[str]


def _read(
    path: Path, settings: dict[str, Any], records: Sequence[Record], evaluation: bool
) -> _Reading:
    """The rows as the study would read them."""
    source = DataSource.model_validate({"path": str(path), **settings})
    reader = RowReader(source, {}, verifiable=evaluation)
    usable, faults = [], Counter[str]()
    for _, row in records:
        if isinstance(row, Fault):
            faults[row.reason] += 1
            continue
        try:
            parsed = reader.parse(row)
        except RowError as error:
            faults[excerpt_of(str(error))] += 1
            continue
        if empty := next((f for f in ("instruction", "output") if parsed.get(f) == ""), None):
            faults[f"the {empty} is empty"] += 1
        else:
            usable.append(parsed)
    return _Reading(settings, usable, faults)


def _with_id(
    path: Path,
    best: _Reading,
    columns: Mapping[str, int],
    records: Sequence[Record],
    evaluation: bool,
) -> _Reading:
    """The same with the column of the rows' own ids, where there seems to be one besides ``id``,
    which is read anyway, and no row is lost by it."""
    fields = best.settings.get("fields", {})
    found = guess([column for column in columns if column not in fields.values()], ("id",))
    if "id" in columns or not found:
        return best
    again = _read(path, {**best.settings, "fields": fields | found}, records, evaluation)
    return again if len(again.usable) == len(best.usable) else best


def _columns(records: Sequence[Record]) -> dict[str, int]:
    """In how many rows each column has a value, in the order of appearance."""
    found: Counter[str] = Counter()
    for _, row in records:
        if isinstance(row, dict):
            found.update(column for column, value in row.items() if value not in (None, ""))
    return dict(found)


def _first(column: str, records: Sequence[Record]) -> dict[str, Any]:
    """The first row with a value in the column, which some row has."""
    rows = (row for _, row in records if isinstance(row, dict))
    return next(row for row in rows if row.get(column) not in (None, ""))


def _proposals(
    columns: Mapping[str, int],
    records: Sequence[Record],
    fields: Mapping[str, str],
    evaluation: bool,
) -> Iterator[dict[str, Any]]:
    """Settings under which the rows may be read, the likelier first."""
    if fields and set(fields.values()) <= set(columns):
        mapping = {name: column for name, column in fields.items() if name != "outputs"}
        listed_in = {"outputs": fields["outputs"]} if "outputs" in fields else {}
        yield {"format": "fields", "fields": mapping, **listed_in}
        return
    formats = FORMATS.all()
    order = [*_FIRST, *(name for name in formats if name not in (*_FIRST, "fields"))]
    guessed = _guess(columns, FITS * len(records), ("instruction", "output"))
    if evaluation:
        for outputs in _lists_of_text(columns, records):
            for name in order:
                own = dict(formats[name].columns)
                own.pop("output", None)
                if own and set(own.values()) <= set(columns) - {outputs}:
                    yield {"format": name, "outputs": outputs}
            others = {column: rows for column, rows in columns.items() if column != outputs}
            if asked := _guess(others, FITS * len(records), ("instruction",)):
                yield {"format": "fields", "fields": asked, "outputs": outputs}
    for name in order:
        needed = set(formats[name].columns.values())
        if needed and needed <= set(columns):
            yield {"format": name}
    if guessed:
        yield {"format": "fields", "fields": guessed}
        yield {"format": "fields", "fields": {n: guessed[n] for n in ("instruction", "output")}}


def _guess(columns: Mapping[str, int], common: float, needed: Sequence[str]) -> dict[str, str]:
    """The columns of the fields that are ``needed``, which have values in ``common`` rows or more,
    and of input and category, which need not; nothing where a needed one is not known."""
    found = guess([column for column, rows in columns.items() if rows >= common], needed)
    if len(found) < len(needed):
        return {}
    others = [column for column in columns if column not in found.values()]
    return found | guess(others, ("input", "category"))


def _lists_of_text(columns: Mapping[str, int], records: Sequence[Record]) -> list[str]:
    """The columns with lists of texts, by the first row that has one."""
    found = []
    for column in columns:
        try:
            given = listed(_first(column, records), column)
        except RowError:
            continue
        if given and all(isinstance(text, str) for text in given):
            found.append(column)
    return found


def _languages(usable: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    frame = pd.DataFrame(list(usable[:LANGUAGES]))
    if "outputs" in frame:
        frame = frame.assign(output=[" ".join(texts) for texts in frame["outputs"]])
    if frame.empty:
        return {}
    counts = with_language(frame)["language"].value_counts()
    return {str(code): int(count) for code, count in counts.items()}


def _length(row: Mapping[str, Any]) -> int:
    output = row["outputs"][0] if row.get("outputs") else row.get("output", "")
    return len(row["instruction"]) + len(row["input"]) + len(output)


def _nothing_fits(
    path: Path, columns: Mapping[str, int], records: Sequence[Record], best: _Reading | None
) -> str:
    """The columns as they are, why the nearest format does not do, and what to write."""
    lines = [f"{path}: no format reads these rows ({len(records)} looked at)"]
    for column, count in list(columns.items())[:_SHOWN]:
        value = _first(column, records)[column]
        kind = {"str": "text", "dict": "object"}.get(type(value).__name__, type(value).__name__)
        shown = excerpt_of(str(value), 60)
        lines.append(f"  column {excerpt_of(column, 80)!r}: {kind}, in {count} rows, as {shown!r}")
    if len(columns) > _SHOWN:
        lines.append(f"  and {len(columns) - _SHOWN} more columns")
    if not columns:
        reasons = Counter(row.reason if isinstance(row, Fault) else "no object with fields"
                          for _, row in records)  # fmt: skip
        reason, count = reasons.most_common(1)[0]
        return "\n".join([*lines, f"  no row has fields; {count} rows: {excerpt_of(reason)}"])
    if best is not None:
        reason, count = best.faults.most_common(1)[0]
        how = ", ".join(f"{key}: {value}" for key, value in best.settings.items())
        lines.append(f"nearest: {how} reads {len(best.usable)} of them; {count}: {reason}")
    lines += [
        "name the columns (input and category may be left out):",
        '  make new-study … FIELDS="instruction=COLUMN output=COLUMN input=COLUMN"',
        "conversations are a column `messages` (role, content) or `conversations` (from, value); a "
        "shape of its own is a data format of its own (docs/extending.md)",
    ]
    return "\n".join(lines)
