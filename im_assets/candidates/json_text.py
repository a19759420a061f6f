"""JSON as data files have it: what Python's parser takes silently, or fails at, is one clear fault.

A key that an object has twice is a fault, since each of its values could be the one that was meant.
A whole number too long for Python (4,300 digits and more) becomes a float, as in every parser that
knows only these: it is no error where nobody reads it, and no finite number where somebody does.
"""

import json
from typing import Any

_DIGITS = 640  # the least that sys.set_int_max_str_digits may be set to


class JsonFault(ValueError):
    """Why a text is not one JSON value."""


class _RepeatedKeyError(ValueError):
    """The key that an object has twice."""


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises JsonFault: not JSON, nested too deeply, or an object that has a key twice.
    """
    try:
        return _DECODER.decode(text)
    except _RepeatedKeyError as error:
        raise JsonFault(f"the key {error} is given twice") from error
    except json.JSONDecodeError as error:
        raise JsonFault(f"bad JSON: {error}") from error
    except RecursionError as error:
        raise JsonFault("bad JSON: nested too deeply") from error


def parse_json_at(text: str, start: int) -> tuple[Any, int]:
    """(value, end) of the JSON value that begins at ``start``; its place is known in any case.

    The value is a JsonFault, not raised, where an object has a key twice.

    Raises:
        json.JSONDecodeError: no JSON begins there.
        RecursionError: nested too deeply.
    """
    try:
        return _DECODER.raw_decode(text, start)
    except _RepeatedKeyError as error:
        end = _PLAIN.raw_decode(text, start)[1]
        return JsonFault(f"the key {error} is given twice"), end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(repr(next(key for key in keys if keys.count(key) > 1))[:100])
    return values


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
_PLAIN = json.JSONDecoder(parse_int=_integer)
