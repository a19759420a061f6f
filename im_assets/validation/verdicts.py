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
from im_assets.validation.arms import BASE, RANDOM, TOKENS, WHOLE, Arm

# What is told of each comparison, on whatever evaluation set.
DIFFERENCE_COLUMNS = {
    "difference": ("double", "Mean less that of what it is compared with"),
    "difference_low": (
        "double",
        "Lower end of its interval for new finetunes and instructions, simultaneous over the table",
    ),
    "difference_high": ("double", "Upper end"),
    "finetune_sd": ("double", "Standard error of the difference from subsets and seeds"),
    "instruction_sd": ("double", "Standard error of the difference from the instructions"),
    "detectable": ("double", "Smallest true difference that would be called 4 times in 5"),
    "noise_units": ("double", "difference / standard deviation of single random finetunes"),
    "verdict": ("text", "better, worse, not distinguishable, or baseline"),
    "rule_id": ("text", "Fingerprint of the rule that the finetunes are about"),
}


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


def with_base(
    runs: pd.DataFrame, value: float, without: tuple[float, ...], target: Target = PAPER
) -> pd.DataFrame:
    """The runs and the base model as a reference that nothing was finetuned for.

    Args:
        value: its measure, and ``without`` each of the groups of instructions.
    """
    row = {"arm": BASE, "kind": "reference", "strategy": BASE, "size": WHOLE, "seed": 0, "slice": 0}
    row |= {target.measure: value, f"{target.measure}_without": without}
    row["rule_id"] = runs["rule_id"].iloc[0]
    base = pd.DataFrame([row]).reindex(columns=runs.columns)
    return pd.concat([runs, base], ignore_index=True)


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


def verdicts(
    runs: pd.DataFrame, target: Target = PAPER, tokens_of: str | None = None
) -> pd.DataFrame:
    """Each strategy against random subsets of the same size, and against the other references.

    The variance of a difference has three parts: that of the strategy's finetunes (each on the
    selection from a part of the pool of its own), that of the random ones, and that over
    instructions. Each arm has its own, since a variance pooled over strategies calls those that
    vary more too often. Finetune and instruction together, which is in all three, counts more than
    once: that makes an interval longer, never shorter. Of the full pool only the seed of the
    finetune varies, and of the base, which is not finetuned, nothing does.

    Args:
        runs: as ``validation_runs`` returns them, with ``<measure>_without``: the measure without
            each of some groups of instructions [groups] (see instructions).
        tokens_of: the strategy whose tokens the reference ``tokens`` has: no other is compared with
            that.

    Returns:
        One row a strategy, size and reference, and one a reference, best first: strategy, size,
        against (``random``, ``tokens``, ``full_pool`` or ``base``; of a reference's own row null),
        finetunes, loss (mean), loss_low, loss_high (95 %, over finetunes on these instructions),
        difference to that reference with difference_low and difference_high (null: not known),
        finetune_sd and instruction_sd (the difference's standard error from either), detectable
        (the smallest true difference that the table would call with 80 % probability), noise_units
        (difference / standard deviation of random arms), verdict: ``better``, ``worse``, ``not
        distinguishable``, or ``baseline``. The three columns of the loss are named after the
        target's measure, and hold it as it is measured, not on the scale that is regressed.
    """
    measure, without = target.measure, f"{target.measure}_without"
    compared = [
        (arm, reference, random)
        for arm, references, random in _compared(runs)
        for reference in references
        if _name(reference) != TOKENS or _name(arm) == tokens_of
    ]
    level = 1 - (1 - CONFIDENCE) / max(1, len(compared))
    rows = [_row(arm, measure) | {"verdict": "baseline"} for arm in _references(runs)]
    for arm, reference, random in compared:
        finetunes = [arm, *([] if _name(reference) == BASE else [reference])]
        means = [float(side[measure].mean()) for side in (arm, reference)]
        gap = means[0] - means[1]
        kept = [np.mean(np.stack(side[without].to_list()), axis=0) for side in (arm, reference)]
        varying = [Component.of_mean(side[measure].to_numpy(dtype=float)) for side in finetunes]
        parts = [*varying, jackknife(kept[0] - kept[1])]
        half = half_width(parts, level)
        differing = {
            "against": _name(reference),
            "difference": gap,
            "difference_low": finite(gap - half),
            "difference_high": finite(gap + half),
            "finetune_sd": finite(float(np.sqrt(sum(part.variance for part in varying)))),
            "instruction_sd": finite(float(np.sqrt(parts[-1].variance))),
            "detectable": finite(detectable(parts, level)),
            "noise_units": gap / random[measure].std(ddof=1),
            "verdict": _verdict(gap - half, gap + half, target),
        }
        rows.append(_row(arm, measure) | differing)
    order = ["strategy", "size", "against", "finetunes"]
    order += [measure, f"{measure}_low", f"{measure}_high"]
    order += ["difference", "difference_low", "difference_high", "finetune_sd", "instruction_sd"]
    order += ["detectable", "noise_units", "verdict"]
    table = pd.DataFrame(rows).reindex(columns=order)
    # A column may hold nothing but nulls, where no interval is known: it is one of numbers anyway.
    return table.astype(dict.fromkeys(order[4:-1], "float64")).sort_values(
        ["size", measure], ascending=[True, target.direction == "lower"], ignore_index=True
    )


def _references(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The finetunes of each reference: of those of a size for each size, then the others."""
    arms = runs[(runs["kind"] == "reference") | (runs["strategy"] == RANDOM)]
    arms = arms[arms["kind"].isin(["strategy", "reference"])]
    return [arm for _, arm in arms.groupby(["size", "strategy"], sort=False)]


def _compared(
    runs: pd.DataFrame,
) -> list[tuple[pd.DataFrame, list[pd.DataFrame], pd.DataFrame]]:
    """The finetunes of each strategy and size, those of each of its references, and the random
    ones."""
    found, references = [], _references(runs)
    arms = runs[(runs["kind"] == "strategy") & (runs["strategy"] != RANDOM)]
    for (size, _), arm in arms.groupby(["size", "strategy"], sort=False):
        mine = [one for one in references if one["size"].iloc[0] in (size, WHOLE)]
        random = next(one for one in mine if _name(one) == RANDOM)
        found.append((arm, sorted(mine, key=lambda one: _name(one) != RANDOM), random))
    return found


def _row(arm: pd.DataFrame, measure: str) -> dict[str, Any]:
    """What is told of the finetunes of one strategy and size alone."""
    values = arm[measure].to_numpy(dtype=float)
    mean, half = float(values.mean()), half_width([Component.of_mean(values)])
    row: dict[str, Any] = {"strategy": _name(arm), "size": int(arm["size"].iloc[0])}
    row |= {"finetunes": 0 if row["strategy"] == BASE else len(values), measure: mean}
    return row | {f"{measure}_low": finite(mean - half), f"{measure}_high": finite(mean + half)}


def _name(arm: pd.DataFrame) -> str:
    return str(arm["strategy"].iloc[0])


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
