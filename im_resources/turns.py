"""Conversations: what a response answers where that is more than one instruction.

The tables of examples have a column ``turns`` where some example needs it: as JSON, the turns that
stand before the response, which is the column ``output``. It is NULL for an instruction alone,
whose row is then what it is without the column.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from im_resources.texts import normalize

TURNS = "turns"
Role = Literal["system", "user", "assistant", "tool"]


class Turn(NamedTuple):
    """Who speaks, and what."""

    role: Role
    content: str


Turns = tuple[Turn, ...]


def write_turns(turns: Sequence[Turn]) -> str:
    """Turns as the JSON of the column, their contents normalized."""
    rows = [{"role": role, "content": normalize(content)} for role, content in turns]
    return json.dumps(rows, ensure_ascii=False)


def read_turns(value: object) -> Turns | None:
    """The turns in a cell of the column; None where there are none."""
    if not isinstance(value, str):  # None, or what pandas makes of NULL
        return None
    return tuple(Turn(turn["role"], turn["content"]) for turn in json.loads(value))


def turns_in(frame: pd.DataFrame) -> list[Turns | None]:
    """The turns of each row; None for an instruction alone, as all rows are without the column."""
    if TURNS not in frame:
        return [None] * len(frame)
    return [read_turns(value) for value in frame[TURNS]]


def turns_columns(frame: pd.DataFrame) -> list[str]:
    """The column ``turns`` where some row has some: what is kept beside the texts, and hashed.

    Left out where there are none, so that results without conversations keep their keys.
    """
    # Without reading them: this is asked of every set and every scoring.
    return [TURNS] if TURNS in frame and any(isinstance(v, str) for v in frame[TURNS]) else []


def texts_of(frame: pd.DataFrame, columns: Sequence[str]) -> list[list[Any]]:
    """The values of each row, and its turns where some row has some: what is hashed of them."""
    rows: list[list[Any]] = frame[list(columns)].to_numpy().tolist()
    if not turns_columns(frame):
        return rows
    cells = [value if isinstance(value, str) else None for value in frame[TURNS]]
    return [[*row, cell] for row, cell in zip(rows, cells, strict=True)]


def asked(row: Mapping[Any, Any]) -> str:
    """All that a row's response answers, as one text: instruction and input, or its turns.

    Without the system's, which many conversations share and which is no content of theirs.
    """
    turns = read_turns(row.get(TURNS))
    if turns is None:
        return f"{row['instruction']} {row['input']}"
    return " ".join(turn.content for turn in turns if turn.role != "system")


def transcript(turns: Sequence[Turn]) -> str:
    """Turns as a text to read, each after its role."""
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
