"""The registry of data formats: one raw row of a source becomes instruction, input and output.

Of a conversation these are its last exchange, and ``turns`` beside them are all of it.

A format is a function under the ``@data_format`` decorator: in a module of
``im_assets/candidates/formats/``, or in one that the profile names as a plugin. A source's line
``format: <name>`` puts it to use (docs/extending.md).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from im_assets.candidates.records import BadValue
from im_assets.candidates.rows import RowError, checked_text, label, listed, number_or_nan
from im_assets.candidates.tracing import OWN_ID
from im_resources.registry import Registry
from im_resources.study import DataSettings, DataSource
from im_resources.turns import TURNS, Turn, write_turns

Read = Callable[..., Mapping[str, Any]]
Write = Callable[[Sequence[Turn]], dict[str, Any]]
Registered = TypeVar("Registered", bound=Read)
FIELDS = ("instruction", "input", "output", "category")
ID = "id"  # the column that a row's own id is read from, unless the source's ``fields`` names one
NOT_TEXT = "not_text"  # what of a row is left out, as counts by kind
# What is right, in an evaluation row: read where it is there, whatever the format.
VERIFIABLE = ("answer", "pattern")


class FormatError(ValueError):
    """A data format that there is not, or that reads a row into something else than fields."""


@dataclass(frozen=True)
class DataFormat:
    """How the rows of a source are read.

    Attributes:
        read: gives the fields of one raw row, a dict: ``instruction``, ``output``, and where there
            are ``input`` and ``category``; of a conversation also ``turns``, a list of Turn (all
            that the output answers), and ``not_text``, counts by kind of what it leaves out. It
            raises RowError for a row that it cannot use. If it has a parameter ``needs_output``, it
            is told whether the source brings its reference outputs in a column of their own; if it
            has ``fields``, it is given the profile's.
        columns: the column that each field is read from, of those without which no row can be used:
            a source none of whose rows has one of them is an error.
        optional: the columns that it reads beside these, where they are there; None where that is
            not known, and it is given all of them.
        write: gives a row of this shape, of all turns of a conversation: a selection of such a pool
            is exported with it. None: as instruction, input and output.
    """

    name: str
    read: Read
    columns: Mapping[str, str]
    optional: tuple[str, ...] | None = None
    write: Write | None = None


FORMATS = Registry[DataFormat]("data format", "im_assets.candidates.formats", FormatError)


def data_format(
    name: str,
    *,
    columns: Mapping[str, str],
    optional: tuple[str, ...] | None = None,
    write: Write | None = None,
) -> Callable[[Registered], Registered]:
    """Register the decorated function as the format ``name`` (see DataFormat).

    Raises FormatError when another function has the name already.
    """

    def register(read: Registered) -> Registered:
        FORMATS.add(name, DataFormat(name, read, columns, optional, write), read)
        return read

    return register


def check_formats(data: DataSettings) -> None:
    """Raises FormatError when a source of the profile has an unknown format."""
    sources = {f"data.candidates.{name}": source for name, source in data.candidates.items()}
    sources |= {f"data.unseen.{name}": source for name, source in data.unseen.items()}
    sources |= {f"data.{name}": source for name, source in data.measured.items()}
    for field, source in sources.items():
        FORMATS.get(source.format, f"{field}.format")


class RowReader:
    """Reads the rows of one source.

    Attributes:
        required: the columns that at least one row must have, or the mapping is wrong.
        columns: all that are read; None where the format does not say.
    """

    def __init__(
        self, source: DataSource, extra: Mapping[str, str], verifiable: bool = False
    ) -> None:
        """Args:
            extra: columns that are kept beside the fields, "number" or "text" each.
            verifiable: whether ``answer`` and ``pattern`` are read, as of evaluation sets.

        Raises FormatError when the source's format is unknown.
        """
        self._format = FORMATS.get(source.format, "format")
        self._outputs, self._extra, self._decimal = source.outputs, extra, source.decimal
        mapped: dict[str, str] = {str(f): c for f, c in (source.fields or {}).items()}
        named_id = mapped.pop("id", None)
        named = {field: mapped.pop(field) for field in VERIFIABLE if field in mapped}
        given = {"fields": mapped or None, "needs_output": source.outputs is None}
        accepted = inspect.signature(self._format.read).parameters
        self._given = {name: value for name, value in given.items() if name in accepted}
        columns = dict(self._format.columns) | mapped
        if source.outputs:
            columns |= {"output": source.outputs}
        self.required = {*columns.values(), *named.values(), *filter(None, [named_id])}
        self._id = named_id or (ID if ID not in self.required else "")
        # A column that is read as something else, such as the output, is no answer by its name.
        own = {field: field for field in VERIFIABLE if field not in columns.values()}
        self._verifiable = {**dict.fromkeys(VERIFIABLE), **own, **named} if verifiable else {}
        self.columns: set[str] | None = None
        if self._format.optional is not None:
            further = {column for column in self._verifiable.values() if column}
            further |= {ID, "category"}
            self.columns = self.required | {*self._format.optional, *extra, *further}

    def parse(self, row: Any) -> dict[str, Any]:
        """The fields of a row: ``instruction``, ``input``, ``category`` and ``output``, or
        ``outputs`` (a list of str) for an evaluation set; ``own_id``, None where the row has none;
        the extra columns; and where there are some, ``turns`` (JSON) and ``not_text`` (counts by
        kind).

        Raises:
            RowError: a field is missing, not text, or not valid Unicode.
            FormatError: the format's function failed, or gave something else.
        """
        if not isinstance(row, dict):
            raise RowError(f"not an object with fields but {type(row).__name__}")
        fields: dict[str, Any] = {"input": "", "category": ""}
        if isinstance(row.get("category"), str | BadValue):  # else it only has this name by chance
            fields["category"] = row["category"]
        fields |= self._read(row)
        turns, not_text = fields.pop(TURNS, None), fields.pop(NOT_TEXT, None)
        if self._outputs:
            fields.pop("output", None)
        wanted = [field for field in FIELDS if field != "output" or not self._outputs]
        parsed: dict[str, Any] = {field: checked_text(fields.get(field), field) for field in wanted}
        if self._outputs:
            values = listed(row, self._outputs)
            parsed["outputs"] = [checked_text(value, self._outputs) for value in values]
        parsed[OWN_ID] = label(row, self._id) if self._id in self.required else self.own_id(row)
        for field, place in self._verifiable.items():
            parsed[field] = "" if place is None else self._right(row, place)
        for column, kind in self._extra.items():
            number = kind == "number"
            parsed[column] = (
                number_or_nan(row, column, self._decimal) if number else label(row, column)
            )
        if turns:
            checked = [Turn(role, checked_text(content, TURNS)) for role, content in turns]
            parsed[TURNS] = write_turns(checked)
        if not_text:
            parsed[NOT_TEXT] = not_text
        return parsed

    def own_id(self, row: Any) -> str | None:
        """The id that the row itself has, as text; None where there is none that can be read."""
        try:
            return label(row, self._id) if self._id and isinstance(row, dict) else None
        except RowError:  # only named so by chance, or of a row that cannot be used either
            return None

    def _right(self, row: dict[str, Any], column: str) -> str:
        """The text in a column, or the digits of a whole number; '' where there is none."""
        known = isinstance(row.get(column), str | int)
        return (label(row, column) or "") if known or column in self.required else ""

    def _read(self, row: dict[str, Any]) -> Mapping[str, Any]:
        try:
            fields = self._format.read(row, **self._given)
        except RowError:
            raise
        except Exception as error:
            raise FormatError(
                f"format {self._format.name!r} failed with {type(error).__name__}: {error}; for a "
                "row that cannot be used it has to raise RowError"
            ) from error
        if not isinstance(fields, Mapping) or not set(fields) <= {*FIELDS, TURNS, NOT_TEXT}:
            raise FormatError(
                f"format {self._format.name!r} gave {fields!r}; expected a dict with "
                f"{', '.join(FIELDS)} (of a conversation also {TURNS} and {NOT_TEXT})"
            )
        return fields
