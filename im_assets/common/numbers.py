"""Columns as checked floats, and floats that are defined or None."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd


def numeric(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """The columns as floats, shape (rows, columns).

    Raises ValueError naming the columns that are not there, or the first that holds a missing or
    infinite value.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the table lacks the column(s) {', '.join(missing)}; it has: "
            f"{', '.join(map(str, frame.columns))}"
        )
    values = frame[list(columns)].to_numpy(dtype=float)
    for name, column in zip(columns, values.T, strict=True):
        bad = int((~np.isfinite(column)).sum())
        if bad:
            raise ValueError(f"{name}: {bad} of {len(column)} values are missing or not finite")
    return values


def finite(value: float) -> float | None:
    """``value`` as a plain float, or None where it is not defined (NaN or infinite)."""
    return float(value) if math.isfinite(value) else None
