"""The arms of the validation: which selections are finetuned on, and how often.

An arm is a strategy at one size. Each of its finetunes selects from a part of the pool of its own,
so that the subsets are independent draws and the arm's spread holds what another subset changes,
not only what another seed does; `random` draws a new subset of the whole pool for each. Two further
kinds of finetunes give the scale: one subset repeated with other seeds (the noise of finetuning),
at the centre, at the selection and where the rule's value is worst; and equal slices of the pool by
the rule's value.

References are what strategies are compared with beside random subsets of as many examples: random
subsets of as many tokens, and all of the pool.
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
TOKENS, FULL_POOL, BASE = "tokens", "full_pool", "base"
WHOLE = 0  # the size of what is no subset: all of the pool, and the base without a finetune
Place = Literal["centre", "selection", "worst"]


@dataclass(frozen=True)
class Arm:
    """One finetune of the validation.

    ``name`` is the strategy or reference; of noise the one whose first subset is repeated, or
    `worst`. ``size`` is that of the selections that a reference is compared with, or 0 (`WHOLE`).
    ``slice`` is the decile, 0 being the best by the rule (the lowest predicted log loss).
    """

    kind: Literal["strategy", "reference", "noise", "decile"]
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
        if TOKENS in settings.references:
            arms += [Arm("reference", TOKENS, size, seed) for seed in range(settings.seeds)]
        # The first finetune of the arm that is repeated is the first repeat.
        arms += [Arm("noise", RANDOM, size, s, place="centre") for s in repeats[1:]]
        if mine is not None:
            arms += [Arm("noise", mine, size, s, place="selection") for s in repeats[1:]]
        arms += [Arm("noise", WORST, size, s, place="worst") for s in repeats]
    if FULL_POOL in settings.references:
        arms += [Arm("reference", FULL_POOL, WHOLE, seed) for seed in repeats]
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


def tokens_arm(settings: ValidationSettings, selection: SelectionSettings) -> str:
    """The strategy whose tokens the reference `tokens` has.

    Raises SelectionError when the profile names none, and none selects as `selection` does.
    """
    found = settings.tokens_of or selection_arm(settings, selection)
    if found is None:
        raise SelectionError(
            "validation.references: tokens needs a strategy whose tokens are matched, and none of "
            "validation.strategies selects as `selection` does; name one in validation.tokens_of"
        )
    return found


@dataclass(frozen=True)
class Part:
    """A part of the pool, and its examples' positions in the whole."""

    positions: np.ndarray
    pool: Pool


def parts_of(pool: Pool, settings: ValidationSettings) -> list[Part]:
    """The pool cut at random into `validation.seeds` parts, whose sizes differ by at most one.

    Raises SelectionError when the parts are smaller than the largest of `validation.sizes`.
    """
    named = ("validation.seeds", "validation.sizes")
    return cut(pool, settings.seeds, max(settings.sizes), named)


def cut(pool: Pool, count: int, size: int, named: tuple[str, str], seed: int = 0) -> list[Part]:
    """The pool cut at random into ``count`` parts, whose sizes differ by at most one.

    By SHA-256 of the example_id, so that the order of the rows does not matter.

    Args:
        size: examples that are selected from a part.
        named: the settings with the count and the size, for the error.
        seed: another one is another cut.

    Raises SelectionError when the parts are smaller than ``size``.
    """
    if (held := len(pool) // count) < size:
        seeds, sizes = named
        raise SelectionError(
            f"each finetune of a strategy selects from a part of the pool of its own: "
            f"{seeds} ({count}) cuts its {len(pool)} examples into parts of {held}, fewer "
            f"than {sizes} asks for ({size}); lower {sizes} or {seeds}, or give a larger pool"
        )
    ranks = np.array([digest(seed, f"part:{i}") for i in pool.examples["example_id"]], dtype=str)
    pieces = np.array_split(np.argsort(ranks, kind="stable"), count)
    # In the pool's own order within a part, so that a part reads like the pool.
    return [Part(places, pool.part(places)) for places in map(np.sort, pieces)]


def members(
    arm: Arm,
    pool: Pool,
    parts: Sequence[Part],
    settings: ValidationSettings,
    limits: SelectionSettings,
) -> np.ndarray:
    """Positions in the pool of the examples that the arm is finetuned on, shape (size,); of
    references as many as they hold.

    The profile's limits (quotas, near duplicates) hold for every strategy but ``random``.

    Args:
        parts: as ``parts_of`` gives them.

    Raises SelectionError when a strategy finds fewer than ``arm.size``, or a decile holds fewer.
    """
    if arm.kind == "decile":
        return _decile(arm, pool, settings.deciles)
    if arm.name == FULL_POOL and arm.kind == "reference":
        # By example_id, so that the order of the rows does not matter.
        return pool.ranked(np.zeros(len(pool)))
    if arm.name == RANDOM:
        seed = 0 if arm.kind == "noise" else arm.seed
        return choose(settings.strategies[RANDOM], pool, arm.size, seed)
    part = parts[0 if arm.kind == "noise" else arm.seed]
    if arm.place == "worst":
        worst = part.pool.ranked(-part.pool.rule.badness(part.pool.indicators))
        return part.positions[worst[: arm.size]]
    name = tokens_arm(settings, limits) if arm.kind == "reference" else arm.name
    chosen = choose(settings.strategies[name], part.pool, arm.size, seed=0, limits=limits)
    if arm.kind == "reference":
        return part.positions[_as_many_tokens(part.pool, chosen, arm)]
    return part.positions[chosen]


def _as_many_tokens(pool: Pool, chosen: np.ndarray, arm: Arm) -> np.ndarray:
    """Random positions that together hold as many training tokens as the chosen ones, to within
    half an example's: the last is taken where that comes nearer. At least one.

    Raises SelectionError when the pool does not tell its tokens.
    """
    if pool.tokens is None:
        raise SelectionError("validation.references: tokens needs a pool that counts its tokens")
    tokens = pool.tokens()
    wanted = tokens[chosen].sum()
    ids = pool.examples["example_id"]
    ranks = np.array([digest(arm.seed, f"{TOKENS}:{i}") for i in ids], dtype=str)
    order = np.argsort(ranks, kind="stable")
    # The chosen ones are of this pool, so all of it has enough.
    held = np.concatenate([[0], np.cumsum(tokens[order])])
    count = int(np.argmin(np.abs(held - wanted)))
    return order[: max(1, count)]


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
