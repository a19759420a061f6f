"""The arms of the validation: which selections are finetuned on, and how often.

An arm is a strategy at one size. Each of its finetunes selects from a part of the pool of its own,
so that the subsets are independent draws and the arm's spread holds what another subset changes,
not only what another seed does; `random` draws a new subset of the whole pool for each. Two further
kinds of finetunes give the scale: one subset repeated with other seeds (the noise of finetuning),
at the centre, at the selection and where the rule's value is worst; and equal slices of the pool by
the rule's value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from im_assets.common.digests import digest
from im_assets.experiments.experiment import arm_key
from im_assets.selection.choosing import choose
from im_assets.selection.pool import Pool
from im_assets.selection.selecting import SelectionError
from im_resources.study import SelectionSettings, ValidationSettings

RANDOM, RULE, WORST = "random", "rule", "worst"
Place = Literal["centre", "selection", "worst"]


@dataclass(frozen=True)
class Arm:
    """One finetune of the validation.

    ``name`` is the strategy; of noise the one whose first subset is repeated, or `worst`. ``slice``
    is the decile, 0 being the best by the rule (the lowest predicted log loss).
    """

    kind: Literal["strategy", "noise", "decile"]
    name: str
    size: int
    seed: int
    slice: int = 0
    place: Place | None = None

    @property
    def key(self) -> str:
        """Its partition key: ``rule-64-seed-001``, ``noise-64-seed-001``, ``noise-rule-…``."""
        repeated = "noise" if self.name == RANDOM else f"noise-{self.name}"
        return arm_key(repeated if self.kind == "noise" else self.name, self.size, self.seed)


def arms_of(settings: ValidationSettings, selection: SelectionSettings) -> dict[str, Arm]:
    """All finetunes of the validation by partition key."""
    arms, mine = [], selection_arm(settings, selection)
    repeats = range(settings.noise_repeats)
    for size in settings.sizes:
        for name in settings.strategies:
            seeds = settings.random_seeds or 2 * settings.seeds
            arms += [
                Arm("strategy", name, size, seed)
                for seed in range(seeds if name == RANDOM else settings.seeds)
            ]
        # The first finetune of the arm that is repeated is the first repeat.
        arms += [Arm("noise", RANDOM, size, s, place="centre") for s in repeats[1:]]
        if mine is not None:
            arms += [Arm("noise", mine, size, s, place="selection") for s in repeats[1:]]
        arms += [Arm("noise", WORST, size, s, place="worst") for s in repeats]
    arms += [
        Arm("decile", f"decile-{i + 1:02d}", settings.sizes[0], 0, i)
        for i in range(settings.deciles)
    ]
    return {arm.key: arm for arm in arms}


def selection_arm(settings: ValidationSettings, selection: SelectionSettings) -> str | None:
    """The arm that selects as the profile's `selection` does, or else `rule`; None without both."""
    wanted = (selection.strategy, selection.options)
    same = [
        name
        for name, arm in settings.strategies.items()
        if (arm.strategy, arm.options) == wanted and name != RANDOM
    ]
    return same[0] if same else RULE if RULE in settings.strategies else None


@dataclass(frozen=True)
class Part:
    """A part of the pool, and its examples' positions in the whole."""

    positions: np.ndarray
    pool: Pool


def parts_of(pool: Pool, settings: ValidationSettings) -> list[Part]:
    """The pool cut at random into `validation.seeds` parts, whose sizes differ by at most one.

    By SHA-256 of the example_id, so that the order of the rows does not matter.

    Raises SelectionError when the parts are smaller than the largest of `validation.sizes`.
    """
    count, wanted = settings.seeds, max(settings.sizes)
    if (held := len(pool) // count) < wanted:
        raise SelectionError(
            f"each finetune of a strategy selects from a part of the pool of its own: "
            f"validation.seeds ({count}) cuts its {len(pool)} examples into parts of {held}, fewer "
            f"than validation.sizes asks for ({wanted}); lower validation.sizes or "
            "validation.seeds, or give a larger pool"
        )
    ranks = np.array([digest(0, f"part:{i}") for i in pool.examples["example_id"]], dtype=str)
    cut = np.array_split(np.argsort(ranks, kind="stable"), count)
    # In the pool's own order within a part, so that a part reads like the pool.
    return [Part(places, pool.part(places)) for places in map(np.sort, cut)]


def members(
    arm: Arm,
    pool: Pool,
    parts: Sequence[Part],
    settings: ValidationSettings,
    limits: SelectionSettings,
) -> np.ndarray:
    """Positions in the pool of the examples that the arm is finetuned on, shape (size,).

    The profile's limits (quotas, near duplicates) hold for every strategy but ``random``.

    Args:
        parts: as ``parts_of`` gives them.

    Raises SelectionError when a strategy finds fewer than ``arm.size``, or a decile holds fewer.
    """
    if arm.kind == "decile":
        return _decile(arm, pool, settings.deciles)
    if arm.name == RANDOM:
        seed = 0 if arm.kind == "noise" else arm.seed
        return choose(settings.strategies[RANDOM], pool, arm.size, seed)
    part = parts[0 if arm.kind == "noise" else arm.seed]
    if arm.place == "worst":
        worst = part.pool.ranked(-part.pool.rule.badness(part.pool.indicators))
        return part.positions[worst[: arm.size]]
    chosen = choose(settings.strategies[arm.name], part.pool, arm.size, seed=0, limits=limits)
    return part.positions[chosen]


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
