"""precomputed: numbers that somebody else computed, from the source's rows or from a file.

They are read, not computed, so nothing of them is cached: with the next run another column or file
gives other scores. What a file holds is part of the scores' fingerprint.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from im_assets.candidates.content import example_id
from im_assets.candidates.files import Fault, read_records
from im_assets.candidates.rows import RowError, label, number_or_nan, text, text_or_empty
from im_assets.candidates.tracing import Place
from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import Column, IndicatorError, indicator
from im_resources.study import did_you_mean, resolve_path

IDENTITY, CONTENT = "example_id", "content"


def _columns(options: Mapping[str, Any]) -> dict[str, Column]:
    if options.get("path") is None:
        if "key" in options:
            raise IndicatorError("precomputed: `key` joins the rows of a file; give its `path` too")
        return {options["column"]: "number"}
    key = options.get("key", IDENTITY)
    return {} if key in (IDENTITY, CONTENT) else {key: "text"}


def _content(options: Mapping[str, Any]) -> str:
    if options.get("path") is None:
        return ""
    path = resolve_path(options["path"])
    if not path.is_file():
        raise IndicatorError(f"precomputed: no such file: {path}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@indicator("precomputed", version=1, columns=_columns, content=_content, cached=False)
def precomputed(
    batch: ScoringBatch, column: str, path: str | None = None, key: str = IDENTITY
) -> np.ndarray:
    """The numbers in a column of the sources' rows, or of the file at ``path``.

    Args:
        column: with the numbers.
        path: JSON, JSON lines, CSV or Parquet, each also .gz or .zst; left out: the sources
            themselves.
        key: what joins the file's rows to examples: ``example_id``; ``content`` (the file has
            instruction, input, output); or a column that the sources' rows have too.

    Raises IndicatorError when an example has no number, or the file gives it two.
    """
    if path is None:
        values = _column(batch.examples, column)
        return _complete(values, batch.examples, f"in column {column!r}")
    place = resolve_path(path)
    scores = dict[str, float]()
    for line, found, value in _read(str(place), read_records(place), column, key):
        if scores.setdefault(found, value) != value:
            raise IndicatorError(
                f"{place}, line {line}: {key} {found!r} has two values, {scores[found]} and {value}"
            )
    keys = _column(batch.examples, IDENTITY if key == CONTENT else key)
    return _complete(keys.map(scores), batch.examples, f"in {place} by {key!r}")


def _read(
    place: str, records: Iterator[tuple[int, Any]], column: str, key: str
) -> Iterator[tuple[int, str, float]]:
    """(line, key, value) of each of the file's rows; a row without a value is passed over."""
    for line, row in records:
        if isinstance(row, Fault) or not isinstance(row, dict):
            told = row.reason if isinstance(row, Fault) else "not an object with fields"
            raise IndicatorError(f"{place}, line {line}: {told}")
        for name in (column, *([] if key == CONTENT else [key])):
            if name not in row:
                raise IndicatorError(
                    f"{place}, line {line}: no field {name!r}{did_you_mean(name, list(row))}; "
                    f"it has: {', '.join(row)}"
                )
        try:
            value, found = number_or_nan(row, column), _key(row, key)
        except RowError as error:
            raise IndicatorError(f"{place}, line {line}: {error}") from error
        if found is not None and not np.isnan(value):
            yield line, found, value


def _key(row: dict[str, Any], key: str) -> str | None:
    if key != CONTENT:
        return label(row, key)
    output = text(row, "output")
    return example_id(text(row, "instruction"), text_or_empty(row, "input"), output)


def _column(examples: pd.DataFrame, name: str) -> pd.Series:
    if name not in examples:
        raise IndicatorError(
            f"the table of examples was made without the column {name!r}, which precomputed reads; "
            "materialize candidate_datasets and the unseen pool again"
        )
    return examples[name]


def _complete(values: pd.Series, examples: pd.DataFrame, where: str) -> np.ndarray:
    missing = values.isna().to_numpy()
    if missing.any():
        first = examples.iloc[int(np.argmax(missing))]
        line = str(Place.of(first.to_dict())) if "line" in first else ""
        raise IndicatorError(
            f"{missing.sum()} of {len(values)} examples have no number {where}; the first: "
            f"{line or first['example_id']}"
        )
    return values.to_numpy(dtype=float)
