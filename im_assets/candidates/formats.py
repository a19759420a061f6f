"""The shapes instruction data comes in: one raw row becomes instruction, input, output, category.

Supported: Alpaca, Dolly, chat turns (``messages`` and ShareGPT's ``conversations``; the first user
turn and the reply to it, without the system turn), and a mapping of column names.
"""

import json
from typing import Any

from im_resources.study import DataSource

USER, ASSISTANT = {"user", "human"}, {"assistant", "gpt", "chatgpt", "bot", "model"}
_TURNS = {
    "messages": ("messages", "role", "content"),
    "sharegpt": ("conversations", "from", "value"),
}
_COLUMNS = {
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output"},
    "dolly": {"instruction": "instruction", "input": "context", "output": "response"},
}


class RowError(ValueError):
    """A row without the text that its format promises."""


class Format:
    """Reads the rows of one source.

    Attributes:
        required: the columns that at least one row must have, or the mapping is wrong.
    """

    def __init__(self, source: DataSource) -> None:
        self._turns = _TURNS.get(source.format)
        self._outputs = source.outputs
        self._columns = {"category": "category"} | _COLUMNS.get(source.format, {})
        self._columns |= {str(field): column for field, column in (source.fields or {}).items()}
        if source.outputs:
            self._columns.pop("output", None)
        optional = set() if source.fields else {"input", "category"}
        self.required = {c for f, c in self._columns.items() if f not in optional}
        if source.fields and "category" not in source.fields:
            self.required.discard("category")
        self.required |= {c for c in (self._turns and self._turns[0], source.outputs) if c}

    def parse(self, row: Any) -> dict[str, Any]:
        """The fields of a row: ``instruction``, ``input``, ``category`` and ``output``, or
        ``outputs`` (a list of str) for an evaluation set.

        Raises:
            RowError: a field is missing, not text, or not valid Unicode.
        """
        if not isinstance(row, dict):
            raise RowError(f"not an object with fields but {type(row).__name__}")
        fields: dict[str, Any] = {"input": "", "category": ""}
        if self._turns:
            fields |= self._first_exchange(row)
        for field, column in self._columns.items():
            value = row.get(column)
            if value is None and field in ("input", "category"):
                continue
            if field == "category" and column not in self.required and not isinstance(value, str):
                continue  # a column that only happens to have this name
            fields[field] = _text(value, column)
        if self._outputs:
            values = _list(row.get(self._outputs), self._outputs)
            fields["outputs"] = [_text(value, self._outputs) for value in values]
        return fields

    def _first_exchange(self, row: dict[str, Any]) -> dict[str, str]:
        assert self._turns is not None
        column, role, content = self._turns
        turns = _list(row.get(column), column)
        if not all(isinstance(turn, dict) for turn in turns):
            raise RowError(f"field {column!r} is not a list of turns with {role!r} and {content!r}")
        roles = [str(turn.get(role)).lower() for turn in turns]
        first = next((i for i, name in enumerate(roles) if name in USER), None)
        if first is None:
            raise RowError(f"field {column!r} has no user turn (roles found: {roles})")
        prompt = {"instruction": _text(turns[first].get(content), f"{column}.{content}")}
        if self._outputs:
            return prompt
        if first + 1 == len(turns) or roles[first + 1] not in ASSISTANT:
            raise RowError(f"field {column!r} has no reply to the first user turn")
        return prompt | {"output": _text(turns[first + 1].get(content), f"{column}.{content}")}


def _text(value: Any, column: str) -> str:
    if value is None:
        raise RowError(f"field {column!r} is missing")
    if not isinstance(value, str):
        raise RowError(f"field {column!r} is not text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            f"field {column!r} is not valid Unicode (invalid UTF-8 or half a surrogate pair)"
        ) from error
    return value


def _list(value: Any, column: str) -> list[Any]:
    if value is None:
        raise RowError(f"field {column!r} is missing")
    if isinstance(value, str):  # CSV cells have no lists: they carry them as JSON
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError(f"field {column!r} is neither a list nor JSON of one") from error
    if not isinstance(value, list):
        raise RowError(f"field {column!r} is not a list but {type(value).__name__}")
    return value
