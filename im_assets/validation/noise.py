"""How far finetunes lie apart that do not differ in quality, and what stands out of it.

What is measured apart: the seed of the finetune at three places (a random subset, the selection,
where the rule's value is worst), since noise need not be the same everywhere; other random subsets;
and how far the strategies' means lie apart beyond what their finetunes' spread explains.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from im_assets.common.components import CONFIDENCE
from im_assets.validation.arms import RANDOM

PLACES = ("centre", "selection", "worst")
COLUMNS = (
    "measure", "source", "place", "size", "finetunes", "mean", "sd", "sd_low", "sd_high",
    "signal_to_noise", "signal_to_noise_low", "signal_to_noise_high",
)  # fmt: skip


def noise_floor(runs: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Noise by its source and place, and the signal of the strategies beside it.

    Args:
        runs: as ``validation_runs`` returns them, with a column of each of the ``measures``.

    Returns:
        One row a measure, size, source and place: finetunes, their mean and standard deviation
        ``sd`` with its 95 % interval (chi-squared, normal values). source is ``finetune seed`` (one
        subset, several seeds), ``random subset`` (several, each with its own seed), or
        ``strategies``: there ``sd`` is that of the strategies' true means, random among them, and
        ``signal_to_noise`` is it in units of the standard deviation of one strategy's finetunes,
        with its 95 % interval (by F).
    """
    rows: list[dict[str, Any]] = []
    for measure in measures:
        for size, group in runs[runs["kind"].isin(["strategy", "noise"])].groupby("size"):
            key = {"measure": measure, "size": int(str(size))}
            strategies = group[group["kind"] == "strategy"]
            for place in PLACES:
                repeats = group[group["place"] == place]
                if len(repeats):
                    same = strategies["strategy"].isin(repeats["strategy"])
                    first = strategies[same & (strategies["seed"] == 0)]
                    sample = pd.concat([first, repeats])[measure].to_numpy(dtype=float)
                    rows.append(key | {"source": "finetune seed", "place": place} | _spread(sample))
            arms = [arm[measure].to_numpy(dtype=float) for _, arm in strategies.groupby("strategy")]
            random = strategies.loc[strategies["strategy"] == RANDOM, measure]
            sample = random.to_numpy(dtype=float)
            rows.append(key | {"source": "random subset", "place": "centre"} | _spread(sample))
            if len(arms) > 1:
                rows.append(key | {"source": "strategies"} | _signal(arms))
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _spread(sample: np.ndarray) -> dict[str, float]:
    from scipy.stats import chi2

    n, sd = len(sample), float(sample.std(ddof=1))
    low, high = (
        sd * np.sqrt((n - 1) / chi2.ppf(q, n - 1))
        for q in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2)
    )
    return {"finetunes": n, "mean": sample.mean(), "sd": sd, "sd_low": low, "sd_high": high}


def _signal(arms: Sequence[np.ndarray]) -> dict[str, float]:
    """One-way analysis of variance with random effects, unequal numbers of finetunes (Searle,
    Casella & McCulloch 1992, Variance Components, 3.6); null where the finetunes do not differ."""
    from scipy.stats import f

    counts = np.array([len(arm) for arm in arms])
    means, total = np.array([arm.mean() for arm in arms]), int(counts.sum())
    grand, between = float(np.concatenate(arms).mean()), len(arms) - 1
    within = total - len(arms)
    noise = sum(float(((arm - arm.mean()) ** 2).sum()) for arm in arms) / within
    ratio = float((counts * (means - grand) ** 2).sum()) / between / noise if noise else np.nan
    each = (total - float((counts**2).sum()) / total) / between

    def signal(by: float) -> float:
        return float(np.sqrt(np.maximum(ratio / by - 1, 0) / each))

    ends = ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2)
    low, high = (signal(f.ppf(q, between, within)) for q in ends)
    return {
        "finetunes": total,
        "mean": float(means.mean()),
        "sd": signal(1.0) * np.sqrt(noise),
        "signal_to_noise": signal(1.0),
        "signal_to_noise_low": low,
        "signal_to_noise_high": high,
    }
