"""What an example is: its normalized texts, and the identity that they give it."""

import hashlib
from collections.abc import Mapping
from typing import Any

from im_resources.texts import SEPARATOR, normalize
from im_resources.turns import TURNS, read_turns, write_turns

TEXTS = ("instruction", "input", "output")


def example_id(*texts: str) -> str:
    """The identity of an example: 16 hex digits of SHA-256 over its normalized texts."""
    joined = SEPARATOR.join(map(normalize, texts))
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def normalized(row: Mapping[Any, Any], *fields: str) -> dict[str, str]:
    """A row's texts as they are stored and hashed: the fields, and ``turns`` where it has some."""
    texts = {field: normalize(row[field]) for field in fields}
    turns = read_turns(row.get(TURNS))
    return texts if turns is None else texts | {TURNS: write_turns(turns)}


def identity_of(row: Mapping[Any, Any]) -> str:
    """The example_id of a row as it was read. Of a conversation, all of it counts."""
    return example_id(*normalized(row, *TEXTS).values())


def empty_part(texts: Mapping[str, str]) -> str:
    """Which of a row's texts, as from `normalized`, is empty and makes it no example: ``output``,
    ``turn 2 of 3``; '' where none is."""
    if not texts["instruction"] or not texts["output"]:
        return "output" if texts["instruction"] else "instruction"
    before = _before(texts)
    if read_turns(texts.get(TURNS)) and not all(before):
        return f"turn {before.index('') + 1} of {len(before) + 1}"
    return ""


def _before(texts: Mapping[str, str]) -> list[str]:
    """What comes before the response: instruction and input, or the turns of a conversation."""
    turns = read_turns(texts.get(TURNS))
    return [turn.content for turn in turns] if turns else [texts["instruction"], texts["input"]]


def length_of(texts: Mapping[str, str]) -> int:
    """Characters of all that a row is, as from `normalized`."""
    return sum(map(len, _before(texts))) + len(texts["output"])
