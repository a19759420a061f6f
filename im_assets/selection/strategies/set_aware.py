"""set_aware: the rule for what belongs to an example, coverage for what belongs to the set.

KNN-i and its like are properties of the chosen set: ranking single examples by KNN-i, as `rule`
does, takes the outliers of a random mixture and may still choose them from one corner. Here the
rule's other terms rank, and the set's spread is maximized as such.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from im_assets.selection.coverage import greedy_cover
from im_assets.selection.pool import Pool
from im_assets.selection.registry import strategy
from im_assets.selection.selecting import SelectionError


@strategy("set_aware", by_rule=True)
def set_aware(
    pool: Pool,
    size: int,
    seed: int,
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5,
    candidates: Annotated[int, Field(ge=1)] = 4,
    reference: Annotated[int, Field(ge=1)] = 16_384,
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.05,
) -> np.ndarray:
    """A set of good predictions (of its examples alone) that covers the pool (see coverage).

    Candidates are the best ``candidates`` · ``size`` examples by the rule without its
    set-level terms. What they have to cover is a random sample of the pool: twice ``size``, at
    least 2,048 and at most ``reference`` examples. So nothing is quadratic in the pool.

    Args:
        weight: of coverage against quality; quality is what the rule predicts, scaled to 1 for the
            best and 0 for the worst candidate.
        candidates: multiples of ``size``.
        epsilon: what the random steps may lose of the greedy guarantee.

    Raises SelectionError when the rule has no indicator.
    """
    badness = _of_examples(pool)
    best = pool.ranked(badness)[: candidates * size]
    quality = _scaled(-badness[best])
    # By example_id, so that the order of the pool's rows does not matter.
    canonical = pool.ranked(np.zeros(len(pool)))
    covered = min(len(pool), reference, max(2 * size, 2048))
    generator = np.random.Generator(np.random.PCG64(seed))
    sample = canonical[generator.choice(len(pool), covered, replace=False)]
    return best[
        greedy_cover(
            quality, pool.vectors(best), pool.vectors(sample), size, weight, epsilon, seed + 1
        )
    ]


def _of_examples(pool: Pool) -> np.ndarray:
    """The rule's linear part without set-level terms, in the target's units [examples]; lower is
    better."""
    if not pool.rule.indicators:
        raise SelectionError(
            "the rule has no indicator (none tells these mixtures apart), so set_aware has "
            "no quality to weigh against coverage; use more mixtures, or rule.source: published_v1"
        )
    rule = pool.rule.without(pool.set_level)
    for name in rule.indicators:
        pool.column(name)
    return rule.badness(pool.indicators)


def _scaled(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros(len(values))
