"""The tables that cleaning makes: the rows that stay, and the others, each with its reason."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import pandas as pd
import pyarrow as pa

from im_assets.candidates.reading import excerpt_of
from im_assets.candidates.tracing import OWN_ID, PLACE, Place, with_place

KEPT_COLUMNS = [
    "example_id", "source", "line", "instruction", "input", "output", "category", "file", OWN_ID,
]  # fmt: skip
OTHER = [f"other_{column}" for column in PLACE]  # the row that one resembles
QUARANTINED_COLUMNS = ["dataset", *PLACE, "kind", "reason", "excerpt", *OTHER]
_TYPES = {"line": "int64", "other_line": "Int64"}
_SCHEMA = pa.schema([(c, pa.int64() if c in _TYPES else pa.string()) for c in QUARANTINED_COLUMNS])


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


def dropped_row(
    place: Place, reason: Reason, texts: Iterable[str], dataset: str = ""
) -> tuple[object, ...]:
    """A row of the quarantine, in the order of its columns."""
    excerpt = excerpt_of(" → ".join(filter(None, texts)))
    other = (None,) * len(OTHER) if reason.other is None else reason.other
    return (dataset, *place, reason.kind, reason.words, excerpt, *other)


def quarantine(dropped: list[tuple[object, ...]], rejected: pd.DataFrame) -> pd.DataFrame:
    """Rejected and dropped rows as one frame, typed even when it is empty (it becomes a table)."""
    frame = pd.DataFrame(dropped, columns=QUARANTINED_COLUMNS)
    parts = [typed(rejected_rows(rejected)), typed(frame)]
    return pd.concat(parts, ignore_index=True)


def rejected_rows(rejected: pd.DataFrame, dataset: str = "") -> pd.DataFrame:
    """Rows that a reader could not use, as rows of the quarantine."""
    rows = with_place(rejected).assign(dataset=dataset, **dict.fromkeys(OTHER))
    return rows[QUARANTINED_COLUMNS]


def quarantine_table(rows: list[tuple[object, ...]] | pd.DataFrame) -> pa.Table:
    """Rows of the quarantine, as from `dropped_row` or `rejected_rows`, for a file."""
    frame = typed(pd.DataFrame(rows, columns=QUARANTINED_COLUMNS))
    return pa.Table.from_pandas(frame, schema=_SCHEMA, preserve_index=False)


def typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the quarantine with the types of its columns."""
    return rows.astype({column: _TYPES.get(column, "string") for column in QUARANTINED_COLUMNS})
