"""The arms of the validation: which selections are finetuned on, and how often.

An arm is a strategy at one size. Each is finetuned on with several seeds; `random` draws a new
subset for each. Two further kinds of finetunes give the scale: one random subset repeated with
other seeds (the noise of finetuning), and equal slices of the pool by the rule's value.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from im_assets.common.digests import digest
from im_assets.experiments.experiment import arm_key
from im_assets.selection.choosing import choose
from im_assets.selection.pool import Pool
from im_assets.selection.selecting import SelectionError
from im_resources.study import SelectionSettings, ValidationSettings

RANDOM = "random"


@dataclass(frozen=True)
class Arm:
    """One finetune of the validation; ``slice`` is the decile, 0 being the best by the rule (the
    lowest predicted log loss)."""

    kind: Literal["strategy", "noise", "decile"]
    name: str
    size: int
    seed: int
    slice: int = 0


def arms_of(settings: ValidationSettings) -> dict[str, Arm]:
    """All finetunes of the validation by partition key."""
    arms = []
    for size in settings.sizes:
        for name in settings.strategies:
            seeds = settings.random_seeds or 2 * settings.seeds
            arms += [
                Arm("strategy", name, size, seed)
                for seed in range(seeds if name == RANDOM else settings.seeds)
            ]
        # The first random arm is the first repeat.
        arms += [Arm("noise", "noise", size, s) for s in range(1, settings.noise_repeats)]
    arms += [
        Arm("decile", f"decile-{i + 1:02d}", settings.sizes[0], 0, i)
        for i in range(settings.deciles)
    ]
    return {arm_key(arm.name, arm.size, arm.seed): arm for arm in arms}


def members(
    arm: Arm, pool: Pool, settings: ValidationSettings, limits: SelectionSettings
) -> np.ndarray:
    """Positions in the pool of the examples that the arm is finetuned on, shape (size,).

    The profile's limits (quotas, near duplicates) hold for every strategy but ``random``.

    Raises SelectionError when the pool, or a decile of it, holds fewer than ``arm.size``.
    """
    if arm.kind == "decile":
        return _decile(arm, pool, settings.deciles)
    if arm.kind == "noise":
        return choose(settings.strategies[RANDOM], pool, arm.size, seed=0)
    strategy = settings.strategies[arm.name]
    if arm.name == RANDOM:
        return choose(strategy, pool, arm.size, arm.seed)
    # One selection for all seeds: they differ in the finetune alone.
    return choose(strategy, pool, arm.size, seed=0, limits=limits)


def _decile(arm: Arm, pool: Pool, slices: int) -> np.ndarray:
    values = pool.rule.badness(pool.indicators)
    ids = pool.examples["example_id"].to_numpy()
    places = np.array_split(np.lexsort((ids, values)), slices)[arm.slice]
    if len(places) < arm.size:
        raise SelectionError(
            f"a slice of the pool ({len(values)} examples in {slices}) holds {len(places)}, fewer "
            f"than validation.sizes asks for ({arm.size}); lower it, or validation.deciles"
        )
    drawn = sorted(places, key=lambda place: digest(arm.seed, f"{arm.name}:{ids[place]}"))
    return np.array(drawn[: arm.size])
