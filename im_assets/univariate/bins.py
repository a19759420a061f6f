"""Bins of one indicator: examples alike in it, to finetune on (paper, univariate analysis).

The scored pool is sorted by the indicator, descending, and cut into K bins of equal size; a set of
the mixtures' size is drawn from each.
"""

import numpy as np
import pandas as pd

from im_assets.common.digests import digest


class BinError(ValueError):
    """Bins that cannot be made; says what is there and what was asked for."""


def draw_bins(values: pd.Series, bins: int, size: int, name: str) -> list[pd.DataFrame]:
    """Sort, cut and draw.

    Args:
        values: the indicator of every scored example, index example_id.
        bins: how many, of equal size (the first ones take the remainder).
        size: examples to draw from each.
        name: the indicator's name; the draw depends on it and on nothing else but the example_ids.

    Returns:
        One frame a bin, highest values first: position (0 …), example_id, value.

    Raises:
        BinError: a bin holds fewer than ``size`` examples.
    """
    held = len(values) // bins
    if held < size:
        raise BinError(
            f"{len(values)} examples are scored for {name!r}, {held} in each of {bins} bins: too "
            f"few to draw {size}; lower univariate.size or univariate.bins, or set scoring.score: "
            "all"
        )
    # Ties by content hash, so that the order of the rows decides nothing.
    frame = pd.DataFrame({"example_id": values.index.astype(str), "value": values.to_numpy()})
    frame = frame.sort_values(["value", "example_id"], ascending=[False, True], ignore_index=True)
    drawn = []
    for places in np.array_split(np.arange(len(frame)), bins):
        members = frame.iloc[places]
        order = np.argsort([digest(0, f"{name}:{i}") for i in members["example_id"]])
        members = members.iloc[order[:size]].reset_index(drop=True)
        members.insert(0, "position", range(size))
        drawn.append(members)
    return drawn
