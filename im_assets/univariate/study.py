"""What the bins of one indicator say about it: does the loss rise or fall with it?

The paper (univariate analysis) finds that PPL, MTLD, Nat and Und rise with the loss, and that Rew
and Coh fall. On eight bins a correlation is uncertain, so each comes with an interval, and its sign
counts as the paper's only if the interval leaves out zero.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from im_assets.common.correlation import Correlation, correlation

# By the usual names of a profile's indicators: +1 rises with the loss, -1 falls.
PAPER_SIGNS = {"ppl": 1, "mtld": 1, "nat": 1, "und": 1, "reward": -1, "coh": -1}


def bin_table(samples: pd.DataFrame, losses: Mapping[str, float]) -> pd.DataFrame:
    """One row a bin: what it holds and what a finetune on it came to.

    Args:
        samples: the bins' members, columns bin (partition key), indicator, number, value.
        losses: the evaluation loss of each partition key.

    Returns:
        indicator, bin (0 = highest values), examples, mean (of the indicator over the bin's
        examples), loss, log_loss; ordered by indicator and bin.
    """
    table = samples.groupby(["indicator", "number", "bin"], as_index=False, sort=True).agg(
        examples=("value", "size"), mean=("value", "mean")
    )
    table["loss"] = table["bin"].map(losses).astype(float)
    table["log_loss"] = np.log(table["loss"])
    return table.drop(columns="bin").rename(columns={"number": "bin"})


def univariate_correlations(bins: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """One row an indicator: correlations of bin mean and log loss, and the sign beside the paper's.

    Args:
        bins: as ``bin_table`` returns it.
        resamples: of the bins, behind each interval.

    Returns:
        indicator, bins, pearson, pearson_low, pearson_high, spearman, spearman_low, spearman_high,
        paper_sign (1, -1, or null: the paper names none), agrees (null: no sign to compare with, or
        the interval of Spearman's correlation holds zero), note.
    """
    rows = []
    for name, group in bins.groupby("indicator", sort=False):
        x, y = group["mean"].to_numpy(), group["log_loss"].to_numpy()
        pearson = correlation(x, y, "pearson", resamples=resamples)
        spearman = correlation(x, y, "spearman", resamples=resamples)
        paper = PAPER_SIGNS.get(str(name))
        agrees, note = _compare(spearman, len(group), paper)
        rows.append(
            {
                "indicator": str(name),
                "bins": len(group),
                "pearson": pearson.value,
                "pearson_low": pearson.low,
                "pearson_high": pearson.high,
                "spearman": spearman.value,
                "spearman_low": spearman.low,
                "spearman_high": spearman.high,
                "paper_sign": paper,
                "agrees": agrees,
                "note": note,
            }
        )
    numbers = [c for c in rows[0] if c.startswith(("pearson", "spearman"))]
    return pd.DataFrame(rows).astype(
        dict.fromkeys(numbers, "float64") | {"paper_sign": "Int64", "agrees": "boolean"}
    )


def _compare(found: Correlation, bins: int, paper: int | None) -> tuple[bool | None, str]:
    """Whether the sign is the paper's, and that in words."""
    value = found.value
    if value is None:
        return None, "no correlation: the bins do not differ"
    word = "rises" if value > 0 else "falls"
    if found.low is None or found.high is None:
        # Points in perfect order have no interval; among few that order comes about by chance.
        if abs(value) < 1 - 1e-9 or 2 / math.factorial(bins) >= 0.05:
            return None, f"no clear sign: {bins} bins give no interval"
    elif found.low * found.high <= 0:
        return None, "no clear sign: the interval holds zero"
    if paper is None:
        return None, f"the loss {word} with it; the paper gives no sign"
    if (value > 0) == (paper > 0):
        return True, f"the loss {word} with it, as in the paper"
    return False, f"the loss {word} with it; in the paper it {'rises' if paper > 0 else 'falls'}"
