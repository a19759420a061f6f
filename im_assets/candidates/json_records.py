"""Rows of JSON lines, and of one JSON list."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO

from im_assets.candidates.json_text import JsonFault, parse_json, parse_json_at
from im_assets.candidates.records import Fault, NotRows, Record, numbered_lines, whole_content

MAX_LIST_BYTES = 1_000_000_000  # a JSON list is held in memory as a whole
_SPACE = re.compile(r"[ \t\n\r]*")
_EXCERPT = 1000
_KINDS = {"{": "object", '"': "text", "t": "true", "f": "false", "n": "null"}


def json_lines(file: IO[bytes], max_line_mb: float) -> Iterator[Record]:
    """A row a line; blank lines are none."""
    for number, line in numbered_lines(file, max_line_mb):
        if isinstance(line, Fault):
            yield number, line
        elif line.strip():
            try:
                yield number, parse_json(line)
            except JsonFault as error:
                yield number, Fault(str(error), line[:_EXCERPT])


def json_list(file: IO[bytes]) -> Iterator[Record]:
    """The elements of the list, one after another, so that one bad one does not take the others.

    Raises NotRows: not a JSON list, or too large to be held.
    """
    remedy = "write one object a line (jq -c '.[]') and name it .jsonl"
    content = whole_content(file, MAX_LIST_BYTES, remedy).getbuffer()
    start = len(codecs.BOM_UTF8) if bytes(content[:3]) == codecs.BOM_UTF8 else 0
    text = str(content[start:], "utf-8", "surrogateescape")
    content.release()
    number, at = 0, _skip(text, 0)
    if at == len(text):
        return
    try:
        if text[at] != "[":
            raise NotRows(_no_list(text, at))
        at = _skip(text, at + 1)
        more = text[at : at + 1] != "]"
        while more:
            number += 1
            row, end = parse_json_at(text, at)
            bad = isinstance(row, JsonFault)
            yield number, Fault(str(row), text[at : min(end, at + _EXCERPT)]) if bad else row
            at = _skip(text, end)
            more = text[at : at + 1] == ","
            if more:
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _skip(text, at + 1)
        if at < len(text):
            raise json.JSONDecodeError("Extra data", text, at)
    except json.JSONDecodeError as error:
        raise NotRows(f"not JSON: {error.msg} at line {error.lineno}, in row {number}") from error
    except RecursionError as error:
        raise NotRows(f"not a list of rows: row {number} is nested too deeply") from error


def _skip(text: str, at: int) -> int:
    """The place of the next character that is not white space."""
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too


def _no_list(text: str, at: int) -> str:
    """Why a text that does not begin with a list holds no rows."""
    try:
        end = _skip(text, parse_json_at(text, at)[1])
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at line {error.lineno}"
    except RecursionError:
        return "not a list of rows: nested too deeply"
    if end < len(text):
        line = text.count("\n", 0, end) + 1
        hint = "one object a line is JSON lines: name it .jsonl"
        return f"not JSON: Extra data at line {line}; {hint}"
    return f"expected a JSON list of rows, found {_KINDS.get(text[at], 'a number')}"
