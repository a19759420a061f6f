"""What the bins of one indicator say about it: does the loss rise or fall with it?

The paper (univariate analysis) finds that PPL, MTLD, Nat and Und rise with the loss, and that Rew
and Coh fall. On eight bins a correlation is uncertain, so each comes with an interval, and its sign
counts as the paper's only if the interval leaves out zero.
"""

import math
from collections.abc import Mapping
from typing import Literal

import pandas as pd

from im_assets.common.correlation import Correlation, correlation
from im_assets.rule.target import PAPER, Target
from im_assets.rule.transform import Transform, transformed

# By the usual names of a profile's indicators: +1 rises with the loss, -1 falls.
PAPER_SIGNS = {"ppl": 1, "mtld": 1, "nat": 1, "und": 1, "reward": -1, "coh": -1}

Verdict = Literal[
    "as_in_paper", "against_paper", "no_paper_sign", "holds_zero", "no_interval", "no_correlation"
]
CLEAR: tuple[Verdict, ...] = ("as_in_paper", "against_paper", "no_paper_sign")


def bin_table(
    samples: pd.DataFrame,
    values: Mapping[str, float],
    target: Target = PAPER,
    n: Mapping[str, int] | None = None,
    transform: Transform = "none",
) -> pd.DataFrame:
    """One row a bin: what it holds and what a finetune on it came to.

    Args:
        samples: the bins' members, columns bin (partition key), indicator, number, value.
        values: the target's measure (the evaluation loss) of each partition key.
        n: of how many each value is a share, where it is one.
        transform: the scale that the rule's points are on.

    Returns:
        indicator, bin (0 = highest values), examples, mean (of the indicator over the bin's
        examples), scaled_mean (the same on the points' scale), the measure and the target (loss,
        log_loss); ordered by indicator and bin.
    """
    scaled = samples.assign(scaled=transformed(samples["value"], transform))
    table = scaled.groupby(["indicator", "number", "bin"], as_index=False, sort=True).agg(
        examples=("value", "size"), mean=("value", "mean"), scaled_mean=("scaled", "mean")
    )
    table[target.measure] = table["bin"].map(values).astype(float)
    counts = None if n is None else table["bin"].map(n).to_numpy(dtype=float)
    table[target.column] = target.transform(table[target.measure].to_numpy(), counts)
    return table.drop(columns="bin").rename(columns={"number": "bin"})


def univariate_correlations(
    bins: pd.DataFrame, resamples: int, target: Target = PAPER
) -> pd.DataFrame:
    """One row an indicator: correlations of bin mean and target (log loss), and the sign beside the
    paper's, which are those of the loss: a target that has another direction is compared turned.

    Args:
        bins: as ``bin_table`` returns it.
        resamples: of the bins, behind each interval.

    Returns:
        indicator, bins, pearson, pearson_low, pearson_high, spearman, spearman_low, spearman_high,
        paper_sign (1, -1, or null: the paper names none), sign (here; null: not clear, as when the
        interval of Spearman's correlation holds zero), agrees (null: one of the signs is), verdict
        (a `Verdict`), note.
    """
    rows = []
    for name, group in bins.groupby("indicator", sort=False):
        x, y = group["mean"].to_numpy(), group[target.column].to_numpy()
        pearson = correlation(x, y, "pearson", resamples=resamples)
        spearman = correlation(x, y, "spearman", resamples=resamples)
        paper = PAPER_SIGNS.get(str(name))
        verdict = _compare(spearman, len(group), paper, target)
        sign = _sign(spearman) if verdict in CLEAR else None
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
                "sign": sign,
                "agrees": (None if paper is None or sign is None else sign * target.sign == paper),
                "verdict": verdict,
                "note": _note(verdict, sign, len(group), target),
            }
        )
    numbers = [c for c in rows[0] if c.startswith(("pearson", "spearman"))]
    return pd.DataFrame(rows).astype(
        dict.fromkeys(numbers, "float64")
        | {"paper_sign": "Int64", "sign": "Int64", "agrees": "boolean"}
    )


def _compare(found: Correlation, bins: int, paper: int | None, target: Target) -> Verdict:
    """Whether the sign is clear, and the paper's."""
    if found.value is None:
        return "no_correlation"
    if found.low is None or found.high is None:
        # Points in perfect order have no interval; among few that order comes about by chance.
        if abs(found.value) < 1 - 1e-9 or 2 / math.factorial(bins) >= 0.05:
            return "no_interval"
    elif found.low * found.high <= 0:
        return "holds_zero"
    if paper is None:
        return "no_paper_sign"
    return "as_in_paper" if _sign(found) * target.sign == paper else "against_paper"


def _sign(found: Correlation) -> int:
    return 1 if found.value is not None and found.value > 0 else -1


def _note(verdict: Verdict, sign: int | None, bins: int, target: Target) -> str:
    """The verdict as a sentence."""
    here, other = ("rises", "falls") if sign == 1 else ("falls", "rises")
    what = target.measure_label
    as_there, against = ", as in the paper", f"; in the paper it {other}"
    if not what.endswith("loss"):  # the paper's signs are those of the loss
        loss = {here: here, other: other} if target.sign == 1 else {here: other, other: here}
        as_there = f"; in the paper the loss {loss[here]}, which agrees"
        against = f"; in the paper the loss {loss[other]}"
    return {
        "as_in_paper": f"the {what} {here} with it{as_there}",
        "against_paper": f"the {what} {here} with it{against}",
        "no_paper_sign": f"the {what} {here} with it; the paper gives no sign",
        "holds_zero": "no clear sign: the interval holds zero",
        "no_interval": f"no clear sign: {bins} bins give no interval",
        "no_correlation": "no correlation: the bins do not differ",
    }[verdict]
