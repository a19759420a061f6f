"""Values of one raw row, checked: what a data format reads its fields with."""

import math
import re
from collections.abc import Mapping
from typing import Any

from im_assets.candidates.json_text import JsonFault, parse_json
from im_assets.candidates.records import BadValue


class RowError(ValueError):
    """A row that cannot be used, and why; it ends in quarantine."""


def text(row: Mapping[str, Any], column: str) -> str:
    """The text in a column. Raises RowError when there is none, or it is not valid Unicode."""
    return checked_text(row.get(column), column)


def text_or_empty(row: Mapping[str, Any], column: str) -> str:
    """The text in a column, '' where there is nothing. Raises RowError for what is not text."""
    return "" if row.get(column) is None else text(row, column)


def checked_text(value: Any, column: str) -> str:
    """``value`` itself. Raises RowError when it is no text of valid Unicode."""
    _check_present(value, column)
    if not isinstance(value, str):
        raise RowError(f"field {column!r} is not text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            f"field {column!r} is not valid Unicode (invalid UTF-8 or half a surrogate pair)"
        ) from error
    return value


def listed(row: Mapping[str, Any], column: str) -> list[Any]:
    """The list in a column, or the JSON of one. Raises RowError when there is none."""
    value = row.get(column)
    _check_present(value, column)
    if isinstance(value, str):  # CSV cells have no lists: they carry them as JSON
        try:
            value = parse_json(value)
        except JsonFault as error:
            said = f"field {column!r} is neither a list nor JSON of one ({error})"
            raise RowError(said) from error
    if not isinstance(value, list):
        raise RowError(f"field {column!r} is not a list but {type(value).__name__}")
    return value


def number_or_nan(row: Mapping[str, Any], column: str, decimal: str = ".") -> float:
    """The number in a column, as text too (CSV), there with ``decimal`` before its decimals; nan
    where there is nothing.

    Raises RowError for what is no finite number.
    """
    value = row.get(column)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    _check_present(value, column)
    try:
        read = value
        if isinstance(value, str) and decimal != ".":  # else 1.000 would be read as 1
            read = value.replace(decimal, ".") if "." not in value else ""
        number = math.inf if isinstance(value, bool) else float(read)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if not math.isfinite(number):
        shown = isinstance(value, str | int | float)  # anything else may be of any depth
        found = f"{value!r:.100}" if shown else f"a {type(value).__name__}"
        hint = ""
        if isinstance(value, str) and re.fullmatch(r"\s*-?\d+[.,]\d+\s*", value):
            hint = f" (numbers are read with {decimal!r}; see `decimal` of the source)"
        raise RowError(f"field {column!r} is no finite number: {found}{hint}")
    return number


def label(row: Mapping[str, Any], column: str) -> str | None:
    """The id in a column, as text (7 and '7' are the same one); None where there is none.

    Raises RowError for what is neither text nor a whole number.
    """
    value = row.get(column)
    if isinstance(value, float):  # so pandas writes whole numbers where some rows have none
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if value is None or isinstance(value, str):
        return None if value in (None, "") else text(row, column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    _check_present(value, column)
    raise RowError(f"field {column!r} is no id but {type(value).__name__}")


def _check_present(value: Any, column: str) -> None:
    """Raises RowError for no value, and for one that the file's reader could not read."""
    if value is None:
        raise RowError(f"field {column!r} is missing")
    if isinstance(value, BadValue):
        raise RowError(f"field {column!r} {value.reason}")
