"""Is a selection better than a random one? Losses, or what else is the rule's target, against a
measured noise floor.

Differences of a hundredth in the loss are what another seed gives (the paper's own second version
reports such), so that no difference is told here without its interval, and none is called better
or worse whose interval, simultaneous over all strategies compared, holds zero.
"""

from typing import Any

import numpy as np
import pandas as pd

from im_assets.common.correlation import correlation
from im_assets.experiments.experiment import some
from im_assets.experiments.lineage import LineageError
from im_assets.rule.target import PAPER, Target
from im_assets.validation.arms import RANDOM, Arm

CONFIDENCE = 0.95


def validation_runs(
    values: dict[str, float], arms: dict[str, Arm], target: Target = PAPER
) -> pd.DataFrame:
    """One row a finetune that was measured: arm (partition key), kind, strategy, size, seed, slice,
    and the target's measure (loss), given in ``values``."""
    return pd.DataFrame(
        [
            (key, a.kind, a.name, a.size, a.seed, a.slice, values[key])
            for key, a in arms.items()
            if key in values
        ],
        columns=["arm", "kind", "strategy", "size", "seed", "slice", target.measure],
    )


def require_all(runs: pd.DataFrame, arms: dict[str, Arm]) -> str:
    """The fingerprint of the one rule that all arms were drawn by.

    Raises LineageError when an arm has no run, or arms were drawn by different rules: a verdict
    over what is left would be another one.
    """
    missing = [key for key in arms if key not in set(runs["arm"])]
    if missing:
        raise LineageError(
            f"validation_runs lacks {some(missing)}: see its check validation_parts_agree for what "
            "to materialize"
        )
    rules = runs["rule_id"].unique()
    if len(rules) != 1:
        raise LineageError(
            f"the arms were drawn by {len(rules)} different rules; materialize selection_samples "
            "for all arms, and what follows"
        )
    return str(rules[0])


def noise_floor(runs: pd.DataFrame, target: Target = PAPER) -> pd.DataFrame:
    """How far finetunes that do not differ in quality lie apart, two ways.

    Args:
        runs: as ``validation_runs`` returns them.

    Returns:
        source (``finetune seed``: one random subset, several seeds; ``random subset``: several
        subsets, each with its own seed), size, finetunes, mean, sd, sd_low, sd_high: standard
        deviation of the measure with its 95 % interval (chi-squared, normal values).
    """
    from scipy.stats import chi2

    rows = []
    for size, group in runs.groupby("size"):
        random = group[(group["kind"] == "strategy") & (group["strategy"] == RANDOM)]
        repeats = group[group["kind"] == "noise"]
        if repeats.empty:
            continue
        same = pd.concat([random[random["seed"] == 0], repeats])
        for source, sample in (("finetune seed", same), ("random subset", random)):
            n, sd = len(sample), float(sample[target.measure].std(ddof=1))
            low, high = (
                sd * np.sqrt((n - 1) / chi2.ppf(q, n - 1))
                for q in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2)
            )
            rows.append((source, int(str(size)), n, sample[target.measure].mean(), sd, low, high))
    columns = ["source", "size", "finetunes", "mean", "sd", "sd_low", "sd_high"]
    return pd.DataFrame(rows, columns=columns)


def verdicts(runs: pd.DataFrame, target: Target = PAPER) -> pd.DataFrame:
    """Each strategy against random subsets of the same size.

    The spread of a random arm is its own (subset and seed); that of the others, whose subset does
    not change, is pooled over them and the repeats. Intervals of differences are Welch's
    (Satterthwaite's degrees of freedom), simultaneous by Bonferroni over the strategies of a size.

    Args:
        runs: as ``validation_runs`` returns them.

    Returns:
        One row a strategy and size, best first: strategy, size, finetunes, loss (mean), loss_low,
        loss_high (95 %), difference to random, difference_low, difference_high, noise_units
        (difference / standard deviation of random arms), p (two-sided, unadjusted), verdict:
        ``better``, ``worse``, ``not distinguishable``, or ``baseline``. The three columns of the
        loss are named after the target's measure, and hold it as it is measured, not on the scale
        that is regressed.
    """
    measure = target.measure
    rows: list[dict[str, Any]] = []
    for size, group in runs[runs["kind"] != "decile"].groupby("size"):
        values = {
            str(name): arm[measure].to_numpy()
            for name, arm in group[group["kind"] == "strategy"].groupby("strategy", sort=False)
        }
        # The repeats differ from the first random arm in the seed alone, so they are one sample.
        first = group[(group["strategy"] == RANDOM) & (group["seed"] == 0)]
        repeats = pd.concat([first, group[group["kind"] == "noise"]])[measure].to_numpy()
        fixed = [x for name, x in values.items() if name != RANDOM] + [repeats]
        pooled, freedom = _pooled_variance(fixed)
        base = values[RANDOM]
        base_variance, base_freedom = base.var(ddof=1), len(base) - 1
        for name, sample in values.items():
            own = (base_variance, base_freedom) if name == RANDOM else (pooled, freedom)
            row: dict[str, Any] = {"strategy": name, "size": int(str(size))}
            row |= {"finetunes": len(sample)}
            row |= _interval(measure, sample.mean(), own[0] / len(sample), own[1], CONFIDENCE)
            if name == RANDOM:
                rows.append(row | {"verdict": "baseline"})
                continue
            parts = ((pooled / len(sample), freedom), (base_variance / len(base), base_freedom))
            squared = sum(v for v, _ in parts)
            df = squared**2 / sum(v**2 / f for v, f in parts)
            level = 1 - (1 - CONFIDENCE) / (len(values) - 1)
            gap = float(sample.mean() - base.mean())
            row |= _interval("difference", gap, squared, df, level)
            row |= {"noise_units": gap / np.sqrt(base_variance), "p": _p(gap, squared, df)}
            ends = row["difference_low"], row["difference_high"]
            rows.append(row | {"verdict": _verdict(*ends, target)})
    table = pd.DataFrame(rows)
    order = ["strategy", "size", "finetunes", measure, f"{measure}_low", f"{measure}_high"]
    order += ["difference", "difference_low", "difference_high", "noise_units", "p", "verdict"]
    return table.reindex(columns=order).sort_values(
        ["size", measure], ascending=[True, target.direction == "lower"], ignore_index=True
    )


def deciles(
    runs: pd.DataFrame,
    predicted: np.ndarray,
    resamples: int = 1000,
    target: Target = PAPER,
) -> pd.DataFrame:
    """Does the loss fall as the rule's value falls, over slices of the unseen pool?

    Args:
        runs: as ``validation_runs`` returns them; ``share_of`` says of how many a measure is a
            share, where it is one.
        predicted: mean predicted target of each slice's finetuned examples, shape (slices,).

    Returns:
        decile (1 = best by the rule), predicted, the measure and the target (loss, log_loss), and
        in every row Spearman's correlation of predicted and measured target: spearman,
        spearman_low, spearman_high.
    """
    mine = runs[runs["kind"] == "decile"].sort_values("slice")
    measured = mine[target.measure].to_numpy()
    n = mine["share_of"].to_numpy() if "share_of" in mine else None
    scaled = target.transform(measured, n)
    found = correlation(predicted, scaled, "spearman", resamples=resamples)
    return pd.DataFrame(
        {
            "decile": mine["slice"].to_numpy() + 1,
            "predicted": predicted,
            target.measure: measured,
            target.column: scaled,
            "spearman": found.value,
            "spearman_low": found.low,
            "spearman_high": found.high,
        }
    ).astype(dict.fromkeys(["spearman", "spearman_low", "spearman_high"], "float64"))


def _pooled_variance(samples: list[np.ndarray]) -> tuple[float, int]:
    """Variance around each sample's own mean, and its degrees of freedom."""
    squares = sum(float(((x - x.mean()) ** 2).sum()) for x in samples)
    freedom = sum(len(x) - 1 for x in samples)
    return squares / freedom, freedom


def _interval(
    name: str, value: float, squared_error: float, df: float, level: float
) -> dict[str, float]:
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, df) * np.sqrt(squared_error))
    return {name: float(value), f"{name}_low": value - half, f"{name}_high": value + half}


def _p(value: float, squared_error: float, df: float) -> float:
    from scipy.stats import t

    return float(2 * t.sf(abs(value) / np.sqrt(squared_error), df))


def _verdict(low: float, high: float, target: Target) -> str:
    if not (low > 0 or high < 0):
        return "not distinguishable"
    return "better" if target.sign * low < 0 else "worse"
