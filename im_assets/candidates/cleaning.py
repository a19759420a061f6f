"""Decides which rows enter a study: normalizes text, quarantines the rest, each with its reason.

The tests are applied in this order, and the first that holds gives the reason:

1. empty instruction or output; longer than ``max_chars``;
2. leak: the prompt (instruction and input) or the output holds much of a text, prompt or reference
   output, of the evaluation set (``leaks.py``);
3. exact duplicate, then near duplicate, of an earlier row that is kept;
4. withdrawn by its id. It comes last, so that what resembles a withdrawn row stays out with it.
"""

import hashlib
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from im_assets.candidates.format_registry import NOT_TEXT
from im_assets.candidates.leaks import Leak, Leaks
from im_assets.candidates.near_duplicates import NearDuplicates
from im_assets.candidates.ngrams import WordHashes
from im_assets.candidates.reading import ROW_COLUMNS, excerpt_of
from im_assets.candidates.tracing import OWN_ID, PLACE, Place, with_place
from im_assets.common.tracking import tracked
from im_resources.study import CleaningSettings
from im_resources.texts import SEPARATOR, normalize
from im_resources.turns import TURNS, asked, read_turns, turns_columns, write_turns

KEPT_COLUMNS = [
    "example_id", "source", "line", "instruction", "input", "output", "category", "file", OWN_ID,
]  # fmt: skip
_BLOCK = 10_000  # rows at once
_TEXTS = ("instruction", "input", "output")
OTHER = [f"other_{column}" for column in PLACE]  # the row that one resembles
QUARANTINED_COLUMNS = ["dataset", *PLACE, "kind", "reason", "excerpt", *OTHER]


class Reason(NamedTuple):
    """Why a row is not used: its kind, for counting, the whole reason in words, and the place of
    the row that it duplicates or leaks."""

    kind: Literal[
        "empty",
        "no output",
        "too long",
        "leaks",
        "exact duplicate",
        "near duplicate",
        "bad pattern",
        "withdrawn",
    ]
    words: str
    other: Place | None = None


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
    return example_id(*normalized(row, *_TEXTS).values())


def as_they_are(settings: CleaningSettings) -> CleaningSettings:
    """Settings that leave out no row for its length, or for what it resembles."""
    kept = {"max_chars": sys.maxsize, "near_duplicate_similarity": math.inf}
    return settings.model_copy(update=kept)


def empty_part(texts: Mapping[str, str]) -> str:
    """Which of a row's texts, as from `normalized`, is empty and makes it no example: ``output``,
    ``turn 2 of 3``; '' where none is."""
    if not texts["instruction"] or not texts["output"]:
        return "output" if texts["instruction"] else "instruction"
    before = _before(texts)
    if read_turns(texts.get(TURNS)) and not all(before):
        return f"turn {before.index('') + 1} of {len(before) + 1}"
    return ""


def clean(
    rows: pd.DataFrame,
    rejected: pd.DataFrame,
    settings: CleaningSettings,
    evaluation: pd.DataFrame | None,
    withdrawn: Collection[str] = (),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split rows into those of the study and those in quarantine.

    Args:
        rows: as from `read_source`, with ``file`` where it is known, the sources in order, each in
            the order of its lines: of duplicates, the first row here stays. Further columns are
            carried through; of a conversation, all ``turns`` but the
            system's are its prompt.
        rejected: rows that the readers could not use; they join the quarantine.
        settings: thresholds.
        evaluation: with columns eval_id, instruction, input, output; None skips the leak test.
        withdrawn: example_ids that are left out; their texts do not go into the quarantine.

    Returns:
        (kept, quarantined) with `KEPT_COLUMNS` and the further ones, and `QUARANTINED_COLUMNS`
        (``dataset`` is ''; ``other_…`` is the place of the row that is kept in the row's stead, or
        of the evaluation row that it leaks; own ids of withdrawn rows are left out); every row
        given is in exactly one of them.
    """
    hashes = WordHashes()
    near = NearDuplicates(settings.near_duplicate_similarity)
    bands = near.bands
    first_with: dict[str, int] = {}
    near_to: dict[int, int] = {}
    extra = [c for c in rows.columns if c not in (*ROW_COLUMNS, *PLACE, NOT_TEXT)]
    kept: list[tuple[object, ...]] = []
    dropped: list[tuple[object, ...]] = []
    identities: list[str] = []

    def looked_at() -> Iterator[tuple[int, str, str]]:
        """Number, prompt and output of each row that is not too long. On the way, each row's
        identity and the bands of its sketch are noted, so that no text is read another time."""
        seen: set[str] = set()
        doing = "normalizing" if evaluation is None else "looking for leaks"
        told = tracked(_records(rows), doing, "rows", len(rows))
        for number, row in enumerate(told):
            texts = normalized(row, *_TEXTS)
            identities.append(example_id(*texts.values()))
            if _length(texts) <= settings.max_chars:
                prompt, output = asked(texts), texts["output"]
                if identities[-1] not in seen:  # a copy is told by its identity
                    seen.add(identities[-1])
                    bands.add(number, np.concatenate([hashes.of(prompt), hashes.of(output)]))
                yield number, prompt, output

    leaks: dict[int, Leak] = {}
    if evaluation is not None:
        found = Leaks(evaluation, settings.leak_ngram, settings.leak_coverage, hashes)
        leaks = found.find(looked_at())
    else:
        for _ in looked_at():
            pass
    alike = bands.alike()
    columns = [rows[c].tolist() if c in rows else [None] * len(rows) for c in PLACE]

    def place_of(number: int) -> Place:
        place = Place.of({c: values[number] for c, values in zip(PLACE, columns, strict=True)})
        return place._replace(own_id=None) if identities[number] in withdrawn else place

    def fault(number: int, texts: Mapping[str, str], identity: str) -> Reason | None:
        instruction, output = texts["instruction"], texts["output"]
        turns = read_turns(texts.get(TURNS))
        if lacking := empty_part(texts):
            return Reason("empty", f"empty {lacking}")
        if (length := _length(texts)) > settings.max_chars:
            said = f"too long: {length} characters, max_chars is {settings.max_chars}"
            return Reason("too long", said)
        if (leak := leaks.get(number)) is not None:
            return Reason("leaks", str(leak), leak.place)
        if (first := first_with.setdefault(identity, number)) != number:
            said, kept_twin = f"exact duplicate of {place_of(first)}", near_to.get(first, first)
            if kept_twin != first:
                said += f", which is a near duplicate of {place_of(kept_twin)}"
            return Reason("exact duplicate", said, place_of(kept_twin))
        first_like = None
        if number in alike:
            response = hashes.of(output)
            words = np.concatenate([hashes.of(asked(texts)), response])
            core = words if turns else np.concatenate([hashes.of(instruction), response])
            first_like = near.find_or_add(number, words, core)
        if first_like is not None:
            near_to[number] = first_like
            twin = place_of(first_like)
            return Reason("near duplicate", f"near duplicate of {twin}", twin)
        if identity in withdrawn:
            return Reason("withdrawn", f"withdrawn by its id, {identity}")
        return None

    told = tracked(_records(rows), "looking for duplicates", "rows", len(rows))
    for number, row in enumerate(told):
        texts, identity, place = normalized(row, *_TEXTS), identities[number], place_of(number)
        reason = fault(number, texts, identity)
        own = [texts[field] for field in _TEXTS]
        if reason is None:
            row |= {TURNS: texts.get(TURNS)}
            further = place.file, place.own_id, *(row[column] for column in extra)
            start = identity, place.source, place.line
            kept.append((*start, *own, row["category"], *further))
        else:
            dropped.append(dropped_row(place, reason, () if identity in withdrawn else own))
    frame = pd.DataFrame(kept, columns=[*KEPT_COLUMNS, *extra])
    frame = frame.astype({c: rows[c].dtype for c in extra})
    if TURNS in frame and not turns_columns(frame):
        frame = frame.drop(columns=TURNS)
    return frame, quarantine(dropped, rejected)


def _records(rows: pd.DataFrame) -> Iterator[dict[Any, Any]]:
    """The rows as dicts, a few of them at a time: all would be as large as the texts."""
    for start in range(0, len(rows), _BLOCK):
        yield from rows.iloc[start : start + _BLOCK].to_dict("records")


def _before(texts: Mapping[str, str]) -> list[str]:
    """What comes before the response: instruction and input, or the turns of a conversation."""
    turns = read_turns(texts.get(TURNS))
    return [turn.content for turn in turns] if turns else [texts["instruction"], texts["input"]]


def _length(texts: Mapping[str, str]) -> int:
    return sum(map(len, _before(texts))) + len(texts["output"])


def dropped_row(place: Place, reason: Reason, texts: Iterable[str]) -> tuple[object, ...]:
    """A row of the quarantine, in the order of its columns."""
    excerpt = excerpt_of(" → ".join(filter(None, texts)))
    other = (None,) * len(OTHER) if reason.other is None else reason.other
    return ("", *place, reason.kind, reason.words, excerpt, *other)


def quarantine(dropped: list[tuple[object, ...]], rejected: pd.DataFrame) -> pd.DataFrame:
    """Rejected and dropped rows as one frame, typed even when it is empty (it becomes a table)."""
    frame = pd.DataFrame(dropped, columns=QUARANTINED_COLUMNS)
    rejected = with_place(rejected).assign(dataset="", **dict.fromkeys(OTHER))
    types = {"line": "int64", "other_line": "Int64"}
    types = {column: types.get(column, "string") for column in QUARANTINED_COLUMNS}
    parts = [part[QUARANTINED_COLUMNS].astype(types) for part in (rejected, frame)]
    return pd.concat(parts, ignore_index=True)
