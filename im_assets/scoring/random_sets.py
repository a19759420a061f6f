"""What a property of sets is for one example: its mean over random sets with that example."""

from collections.abc import Callable

import numpy as np

from im_assets.common.tracking import tracked


def mean_over_random_sets(
    score: Callable[[np.ndarray], np.ndarray],
    vectors: np.ndarray,
    size: int,
    draws: int = 8,
    seed: int = 0,
) -> np.ndarray:
    """The value of each of a pool's examples, averaged over random sets, float64 [examples].

    Each draw parts the pool into random sets of ``size``; what is left over makes a set with others
    drawn again, so that all sets are of one size. Linear in the pool. A number for the whole set
    counts for each of its members: over so few draws the differences between examples are then
    mostly noise, the mean over a pool is not.

    Args:
        score: a set's vectors to a number a member, or one number for the set.
        vectors: of the pool, [examples, dimensions].
        size: examples of a set; a smaller pool is one set.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    count = len(vectors)
    members = min(size, count)
    total = np.zeros(count)
    for _ in tracked(range(draws), "averaging over random sets", "draws"):
        order = generator.permutation(count)
        for start in range(0, count, members):
            rows = order[start : start + members]
            # Of the others, the first of the order: members of another set, at random.
            filled = np.concatenate([rows, order[: members - len(rows)]])
            values = np.broadcast_to(score(vectors[filled]), members)
            total[rows] += values[: len(rows)]
    return total / draws
