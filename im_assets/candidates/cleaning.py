"""Decides which rows enter a study: normalizes text, quarantines the rest, each with its reason.

The tests are applied in this order, and the first that holds gives the reason:

1. empty instruction or output; longer than ``max_chars``;
2. leak: the prompt (instruction and input) or the output holds much of a text, prompt or reference
   output, of the evaluation set (``leaks.py``);
3. exact duplicate, then near duplicate, of an earlier row that is kept;
4. withdrawn by its id. It comes last, so that what resembles a withdrawn row stays out with it.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from im_assets.candidates.format_registry import NOT_TEXT
from im_assets.candidates.leaks import Leak, Leaks
from im_assets.candidates.near_duplicates import NearDuplicates
from im_assets.candidates.ngrams import WordHashes
from im_assets.candidates.reading import ROW_COLUMNS, excerpt_of
from im_resources.study import CleaningSettings
from im_resources.texts import SEPARATOR, normalize
from im_resources.turns import TURNS, asked, read_turns, turns_columns, write_turns

KEPT_COLUMNS = [
    "example_id", "source", "line", "instruction", "input", "output", "category", "file",
]  # fmt: skip
_TEXTS = ("instruction", "input", "output")
QUARANTINED_COLUMNS = ["dataset", "source", "file", "line", "kind", "reason", "excerpt"]


class Reason(NamedTuple):
    """Why a row is not used: its kind, for counting, and the whole reason in words."""

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
        (``dataset`` is ''); every row given is in exactly one of them.
    """
    hashes = WordHashes()
    near = NearDuplicates(settings.near_duplicate_similarity)
    first_with: dict[str, int] = {}
    rows = rows if "file" in rows else rows.assign(file="")
    places = [_place(*where) for where in rows[["source", "file", "line"]].itertuples(index=False)]
    extra = [c for c in rows.columns if c not in (*ROW_COLUMNS, "file", NOT_TEXT)]
    kept: list[tuple[object, ...]] = []
    dropped: list[tuple[object, ...]] = []

    whole = [normalized(row, *_TEXTS) for row in rows.to_dict("records")]
    leaks: dict[int, Leak] = {}
    if evaluation is not None:
        found = Leaks(evaluation, settings.leak_ngram, settings.leak_coverage, hashes)
        leaks = found.find(
            (number, asked(texts), texts["output"])
            for number, texts in enumerate(whole)
            if _length(texts) <= settings.max_chars
        )

    def fault(number: int, texts: Mapping[str, str], identity: str) -> Reason | None:
        instruction, output = texts["instruction"], texts["output"]
        turns = read_turns(texts.get(TURNS))
        before = _before(texts)
        if not instruction or not output:
            return Reason("empty", f"empty {'output' if instruction else 'instruction'}")
        if turns and not all(before):
            return Reason("empty", f"empty turn {before.index('') + 1} of {len(before) + 1}")
        if (length := _length(texts)) > settings.max_chars:
            said = f"too long: {length} characters, max_chars is {settings.max_chars}"
            return Reason("too long", said)
        if (leak := leaks.get(number)) is not None:
            return Reason("leaks", str(leak))
        if (first := first_with.setdefault(identity, number)) != number:
            return Reason("exact duplicate", f"exact duplicate of {places[first]}")
        response = hashes.of(output)
        words = np.concatenate([hashes.of(asked(texts)), response])
        core = words if turns else np.concatenate([hashes.of(instruction), response])
        if (first_like := near.find_or_add(number, words, core)) is not None:
            return Reason("near duplicate", f"near duplicate of {places[first_like]}")
        if identity in withdrawn:
            return Reason("withdrawn", f"withdrawn by its id, {identity}")
        return None

    for number, row in enumerate(rows.to_dict("records")):
        texts = whole[number]
        identity = example_id(*texts.values())
        reason = fault(number, texts, identity)
        own = [texts[field] for field in _TEXTS]
        if reason is None:
            row |= {TURNS: texts.get(TURNS)}
            further = (row[column] for column in extra)
            place = row["source"], row["line"]
            kept.append((identity, *place, *own, row["category"], row["file"], *further))
        else:
            shown = () if identity in withdrawn else own
            excerpt = excerpt_of(" → ".join(filter(None, shown)))
            dropped.append(("", row["source"], row["file"], row["line"], *reason, excerpt))
    frame = pd.DataFrame(kept, columns=[*KEPT_COLUMNS, *extra])
    frame = frame.astype({c: rows[c].dtype for c in extra})
    if TURNS in frame and not turns_columns(frame):
        frame = frame.drop(columns=TURNS)
    return frame, quarantine(dropped, rejected)


def _before(texts: Mapping[str, str]) -> list[str]:
    """What comes before the response: instruction and input, or the turns of a conversation."""
    turns = read_turns(texts.get(TURNS))
    return [turn.content for turn in turns] if turns else [texts["instruction"], texts["input"]]


def _length(texts: Mapping[str, str]) -> int:
    return sum(map(len, _before(texts))) + len(texts["output"])


def _place(source: str, file: str, line: int) -> str:
    return f"{source} ({file}) line {line}" if file else f"{source} line {line}"


def quarantine(dropped: list[tuple[object, ...]], rejected: pd.DataFrame) -> pd.DataFrame:
    """Rejected and dropped rows as one frame, typed even when it is empty (it becomes a table)."""
    frame = pd.DataFrame(dropped, columns=QUARANTINED_COLUMNS)
    rejected = rejected if "file" in rejected else rejected.assign(file="")
    parts = [part for part in (rejected.assign(dataset=""), frame) if len(part)]
    whole = pd.concat(parts, ignore_index=True)[QUARANTINED_COLUMNS] if parts else frame
    return whole.astype({c: "int64" if c == "line" else "string" for c in QUARANTINED_COLUMNS})
