"""Where a row came from: its source, its file, its line there, and its own id.

The place is told of every example and every row that was dropped, and takes part in nothing else:
in no example_id, in no fingerprint, and in no version of a table's content. The same rows in
another order, or in another file, are the same data.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from im_assets.common.versions import content_version

OWN_ID = "own_id"
PLACE = ["source", "file", "line", OWN_ID]
# What tells of a place and changes no result; the source does: mixtures are drawn by it.
_UNCOUNTED = ["file", "line", OWN_ID]
_TYPES = {"source": "string", "file": "string", "line": "Int64", OWN_ID: "string"}
COLUMNS = {
    "source": ("VARCHAR", "Name of the source in the profile"),
    "file": (
        "VARCHAR",
        "Name of the file, or id of the hub dataset, that it was read from; of several files, the "
        "path below the folder that they share; of a landed one, landed/, its number in "
        "landed_files, and the name that it landed under",
    ),
    "line": (
        "BIGINT",
        "1-based line of JSONL, and of CSV the line that the row begins on; the number of the row "
        "in JSON, Parquet and hub datasets",
    ),
    OWN_ID: ("VARCHAR", "The row's own id (`fields.id`, by default its `id`); NULL where none"),
}


class Place(NamedTuple):
    """Where a row stands."""

    source: str
    file: str = ""
    line: int | None = None
    own_id: str | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Place":
        """The place that a row of a table tells; what it does not tell is left empty."""
        source, file, line, own_id = (row.get(column) for column in PLACE)
        return cls(
            _text(source) or "",
            _text(file) or "",
            None if pd.isna(line) else int(line),
            _text(own_id),
        )

    def __str__(self) -> str:
        file = f" ({self.file})" if self.file else ""
        line = "" if self.line is None else f" line {self.line}"
        return f"{self.source}{file}{line}" or "its place unknown"


def with_place(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with all columns of their place, NULL where a table was made without them."""
    missing = [column for column in PLACE if column not in rows]
    return rows.assign(**{c: pd.Series(pd.NA, rows.index, dtype=_TYPES[c]) for c in missing})


def version_of_rows(examples: pd.DataFrame, ordered: bool = False) -> str:
    """The data version of a table of examples: of what the rows are, and not of where they stand.

    Args:
        ordered: their order counts, as of an evaluation set, of which the first may be taken.
    """
    rows = counted(examples)
    return content_version(rows if ordered else rows.sort_values("example_id", kind="stable"))


def counted(examples: pd.DataFrame) -> pd.DataFrame:
    """The columns of examples that their data version is of."""
    return examples.drop(columns=_UNCOUNTED, errors="ignore")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
