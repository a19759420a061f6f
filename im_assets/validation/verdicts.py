"""Is a selection better than a random one? Losses, or what else is the rule's target, against their
noise.

Differences of a hundredth in the loss are what another subset, another seed or other instructions
give. So a strategy is called better or worse only where the interval of its difference from random,
simultaneous over all comparisons of the table, excludes zero; and that interval has to hold for new
subsets and finetunes (of both sides) and for new instructions. What a table of this size could not
have seen stands beside it.
"""

from typing import Any

import numpy as np
import pandas as pd

from im_assets.common.components import CONFIDENCE, Component, detectable, half_width, jackknife
from im_assets.common.correlation import correlation
from im_assets.common.numbers import finite
from im_assets.experiments.experiment import some
from im_assets.experiments.lineage import LineageError
from im_assets.rule.target import PAPER, Target
from im_assets.validation.arms import RANDOM, Arm


def validation_runs(
    values: dict[str, float], arms: dict[str, Arm], target: Target = PAPER
) -> pd.DataFrame:
    """One row a finetune that was measured: arm (partition key), kind, strategy, place, size, seed,
    slice, and the target's measure (loss), given in ``values``."""
    return pd.DataFrame(
        [
            (key, a.kind, a.name, a.place, a.size, a.seed, a.slice, values[key])
            for key, a in arms.items()
            if key in values
        ],
        columns=["arm", "kind", "strategy", "place", "size", "seed", "slice", target.measure],
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


def verdicts(runs: pd.DataFrame, target: Target = PAPER) -> pd.DataFrame:
    """Each strategy against random subsets of the same size.

    The variance of a difference has three parts: that of the strategy's finetunes (each on the
    selection from a part of the pool of its own), that of the random ones, and that over
    instructions. Each arm has its own, since a variance pooled over strategies calls those that
    vary more too often. Finetune and instruction together, which is in all three, counts more than
    once: that makes an interval longer, never shorter.

    Args:
        runs: as ``validation_runs`` returns them, with ``<measure>_without``: the measure without
            each of some groups of instructions [groups] (see instructions).

    Returns:
        One row a strategy and size, best first: strategy, size, finetunes, loss (mean), loss_low,
        loss_high (95 %, over finetunes on these instructions), difference to random with
        difference_low and difference_high (null: not known), finetune_sd and instruction_sd (the
        difference's standard error from either), detectable (the smallest true difference that
        the table would call with 80 % probability), noise_units (difference / standard deviation of
        random arms), verdict: ``better``, ``worse``, ``not distinguishable``, or ``baseline``. The
        three columns of the loss are named after the target's measure, and hold it as it is
        measured, not on the scale that is regressed.
    """
    measure = target.measure
    arms = runs[runs["kind"] == "strategy"]
    compared = arms.loc[arms["strategy"] != RANDOM, ["size", "strategy"]].drop_duplicates()
    level = 1 - (1 - CONFIDENCE) / max(1, len(compared))
    rows: list[dict[str, Any]] = []
    for size, group in arms.groupby("size"):
        base = group[group["strategy"] == RANDOM]
        for name, arm in group.groupby("strategy", sort=False):
            values = arm[measure].to_numpy(dtype=float)
            mean, half = float(values.mean()), half_width([Component.of_mean(values)])
            row: dict[str, Any] = {"strategy": str(name), "size": int(str(size))}
            row |= {"finetunes": len(values), measure: mean}
            row |= {f"{measure}_low": finite(mean - half), f"{measure}_high": finite(mean + half)}
            compare = name != RANDOM
            row |= _compared(arm, base, target, level) if compare else {"verdict": "baseline"}
            rows.append(row)
    order = ["strategy", "size", "finetunes", measure, f"{measure}_low", f"{measure}_high"]
    order += ["difference", "difference_low", "difference_high", "finetune_sd", "instruction_sd"]
    order += ["detectable", "noise_units", "verdict"]
    table = pd.DataFrame(rows).reindex(columns=order)
    # A column may hold nothing but nulls, where no interval is known: it is one of numbers anyway.
    return table.astype(dict.fromkeys(order[3:-1], "float64")).sort_values(
        ["size", measure], ascending=[True, target.direction == "lower"], ignore_index=True
    )


def _compared(
    arm: pd.DataFrame, base: pd.DataFrame, target: Target, level: float
) -> dict[str, float | str | None]:
    """The difference of an arm's finetunes to random ones, with its interval at ``level``."""
    sides = [side[target.measure].to_numpy(dtype=float) for side in (arm, base)]
    # [groups] each: the mean over finetunes without each group of instructions.
    kept = [
        np.mean(np.stack(side[f"{target.measure}_without"].to_list()), axis=0)
        for side in (arm, base)
    ]
    own, theirs = map(Component.of_mean, sides)
    instructions = jackknife(kept[0] - kept[1])
    gap = float(sides[0].mean() - sides[1].mean())
    half = half_width([own, theirs, instructions], level)
    return {
        "difference": gap,
        "difference_low": finite(gap - half),
        "difference_high": finite(gap + half),
        "finetune_sd": finite(float(np.sqrt(own.variance + theirs.variance))),
        "instruction_sd": finite(float(np.sqrt(instructions.variance))),
        "detectable": finite(detectable([own, theirs, instructions], level)),
        "noise_units": gap / sides[1].std(ddof=1),
        "verdict": _verdict(gap - half, gap + half, target),
    }


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


def _verdict(low: float, high: float, target: Target) -> str:
    if not (low > 0 or high < 0):
        return "not distinguishable"
    return "better" if target.sign * low < 0 else "worse"
