"""Reads the file of finished runs: one row a run, with its examples and what was measured of it.

A run's examples are those of a file of its own, or ids. Either way they are known by what they are:
an example_id is a hash of the normalized content, so the same text is the same example, whatever
file it stands in. All faults of the file are found before any is told.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from im_assets.candidates.content import empty_part, example_id, normalized
from im_assets.candidates.files import Fault, SourceError, read_records
from im_assets.candidates.format_registry import FormatError
from im_assets.candidates.reading import excerpt_of, read
from im_assets.experiments.experiment import some
from im_assets.rule.target import Target
from im_resources.study import (
    ProfileError,
    RunsSettings,
    did_you_mean,
    expand_variables,
    resolve_path,
)

RUN, FILE, EXAMPLES = "run", "file", "examples"
MOST = 1e100  # of what is measured: squares of more are no numbers any more
TOLD = 5  # faults in an error; of more it is said how many
_ID = re.compile("[0-9a-f]{16}")
_TEXTS = ("instruction", "input", "output")


class OwnRunsError(ValueError):
    """A file of runs that cannot be used; says where, what is there, and what would be right."""


@dataclass(frozen=True)
class Run:
    """A finished finetune.

    Attributes:
        line: of the file, where its row begins.
        value: what was measured of it.
        members: the example_ids that it was trained on, in order; one that stands twice is there
            twice.
        unusable: rows of its file that are no example: unreadable, or empty.
    """

    name: str
    line: int
    value: float
    members: tuple[str, ...]
    unusable: int = 0


@dataclass(frozen=True)
class OwnRuns:
    """All runs of the file in its order, and the columns that nothing was read from."""

    runs: tuple[Run, ...]
    ignored: tuple[str, ...]


class _Faulty(ValueError):
    """One field that is wrong; the message begins with its name."""


def read_runs(
    settings: RunsSettings,
    target: Target,
    pool: Collection[str],
    withdrawn: Collection[str] = frozenset(),
) -> OwnRuns:
    """The finished runs.

    Args:
        target: says which values its scale can hold.
        pool: the example_ids of the candidates.
        withdrawn: those that were left out of them by their ids.

    Raises OwnRunsError for a file or column that is not there, and for everything that is wrong in
    its rows: the first few, with line and field, and how many more.
    """
    path = resolve_path(settings.path)
    rows: list[tuple[int, Mapping[str, Any]]] = []
    faults: list[tuple[int, str]] = []
    try:
        for line, row in read_records(path):
            if isinstance(row, Fault):
                faults.append((line, row.reason))
            elif isinstance(row, dict):
                rows.append((line, row))
            else:
                faults.append((line, "no row of columns"))
    except SourceError as error:
        raise OwnRunsError(f"runs.path: {error}") from error
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    if columns or not faults:
        _require_columns(path, columns, settings.measure)
    names: dict[str, int] = {}
    members = _Members(settings, path.parent, pool, withdrawn)
    found = []
    for line, row in rows:
        try:
            name = _name(row, line, names)
            value = _value(row.get(target.measure), target)
            found.append(Run(name, line, value, *members.of(row)))
        except _Faulty as error:
            faults.append((line, str(error)))
    if faults:
        more = f"; and {len(faults) - TOLD} more" if len(faults) > TOLD else ""
        told = "; ".join(f"line {line}: {said}" for line, said in sorted(faults)[:TOLD])
        raise OwnRunsError(f"{path}: {told}{more}")
    read_from = {RUN, FILE, EXAMPLES, settings.measure}
    return OwnRuns(tuple(found), tuple(c for c in columns if c not in read_from))


def _require_columns(path: Path, columns: list[str], measure: str) -> None:
    if not columns:
        raise OwnRunsError(
            f"{path} has no run; give one row a run below the columns {RUN}, {measure}, and "
            f"{FILE} or {EXAMPLES}"
        )
    has = f"it has: {', '.join(excerpt_of(column, 40) for column in columns)}"
    for name, setting in ((RUN, ""), (measure, " (runs.measure)")):
        if name not in columns:
            hint = did_you_mean(name, columns)
            raise OwnRunsError(f"{path}: no column {name!r}{setting}{hint}; {has}")
    if not {FILE, EXAMPLES} & set(columns):
        raise OwnRunsError(
            f"{path}: no column {FILE!r} (a file of each run's training data) and no column "
            f"{EXAMPLES!r} (their example_ids); {has}"
        )


def _name(row: Mapping[str, Any], line: int, names: dict[str, int]) -> str:
    name = _text(row, RUN)
    if not name or not name.isprintable() or len(name) > 100:
        raise _Faulty(f"{RUN} is {excerpt_of(name)!r}; give a name of 1 to 100 characters")
    if (first := names.setdefault(name, line)) != line:
        raise _Faulty(f"{RUN} {name!r} stands in line {first} already; give each run its own name")
    return name


def _value(given: Any, target: Target) -> float:
    field = f"{target.measure} is {excerpt_of(str(given), 40)!r}"
    text = str(given)
    try:
        # Python reads 1_5 as 15, which is more likely a slip of the keyboard.
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= MOST:  # nan too
        raise _Faulty(f"{field}; give a number, such as 1.85")
    if target.scale == "log" and value <= 0:
        raise _Faulty(f"{field}; only a positive number has a logarithm (runs.scale: identity)")
    if target.scale == "logit" and not 0 < value < 1:
        raise _Faulty(f"{field}; only what lies between 0 and 1 has a logit (runs.scale: identity)")
    return value


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value).strip()


class _Members:
    """Finds the examples of a run; a file that several runs name is read once."""

    def __init__(
        self,
        settings: RunsSettings,
        folder: Path,
        pool: Collection[str],
        withdrawn: Collection[str],
    ) -> None:
        self._settings, self._folder = settings, folder
        self._pool, self._withdrawn = frozenset(pool), frozenset(withdrawn)
        self._read: dict[str, tuple[tuple[str, ...], int]] = {}

    def of(self, row: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
        """The members of the row's run, and how many rows of its file are no example."""
        file, ids = _text(row, FILE), _text(row, EXAMPLES).split()
        if bool(file) == bool(ids):
            which = "both are given" if file else "both are empty"
            raise _Faulty(f"{FILE} and {EXAMPLES}: {which}; give one of them")
        if wrong := [word for word in ids if not _ID.fullmatch(word)]:
            raise _Faulty(
                f"{EXAMPLES}: {excerpt_of(wrong[0], 40)!r} is no example_id (16 digits of 0-9 and "
                "a-f); separate them by blanks"
            )
        field = f"{FILE} {file}" if file else EXAMPLES
        members, unusable = self._of_file(file) if file else (tuple(ids), 0)
        missing = list(dict.fromkeys(one for one in members if one not in self._pool))
        if missing:
            gone = sum(one in self._withdrawn for one in missing)
            withdrawn = f", {gone} of them withdrawn (data.withdrawn)" if gone else ""
            raise _Faulty(
                f"{field}: {len(missing)} of {len(set(members))} examples are in no source of "
                f"data.candidates{withdrawn} ({some(missing, 3)}); add the data that they are of, "
                "or take the run out"
            )
        return members, unusable

    def _of_file(self, file: str) -> tuple[tuple[str, ...], int]:
        if file not in self._read:
            self._read[file] = self._identities(file)
        return self._read[file]

    def _identities(self, file: str) -> tuple[tuple[str, ...], int]:
        try:
            place = self._folder / Path(expand_variables(file)).expanduser()
            found = read(FILE, self._settings.source_of(str(place)))
        except (SourceError, FormatError, ProfileError, RuntimeError) as error:
            raise _Faulty(f"{FILE}: {str(error).removeprefix(f'source {FILE!r}: ')}") from error
        texts = [normalized(row, *_TEXTS) for row in found.rows.to_dict("records")]
        members = tuple(example_id(*one.values()) for one in texts if not empty_part(one))
        if not members:
            raise _Faulty(
                f"{FILE}: none of the {len(texts) + len(found.rejected)} rows of {file} is an "
                f"example, read as runs.format: {self._settings.format}"
            )
        return members, len(texts) - len(members) + len(found.rejected)
