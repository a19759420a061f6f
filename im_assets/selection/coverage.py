"""Choose a set that is good and covers the pool: stochastic greedy on a submodular objective.

The objective of a set S of ``size`` candidates is

    F(S) = (1 - weight) · Σ_{s in S} q_s / size  +  weight · mean_v max_{s in S} max(0, cos(v, s))

with qualities q in [0, 1] and v over a reference sample of the pool: a modular term and a facility
location, so F is monotone and submodular. Each step takes the candidate of the largest gain among
a random few (Mirzasoleiman et al. 2015, *Lazier than lazy greedy*, arXiv 1409.7938), which gives at
least (1 - 1/e - epsilon) of the best set's F in expectation.
"""

import math

import numpy as np

from im_assets.common.tracking import work

# Similarities held at once: 2^24 float32 are 64 MB.
BLOCK = 1 << 24


def greedy_cover(
    quality: np.ndarray,
    vectors: np.ndarray,
    reference: np.ndarray,
    size: int,
    weight: float,
    epsilon: float,
    seed: int,
) -> np.ndarray:
    """Rows of the chosen candidates in the order of their choice, int [size].

    Costs candidates · ln(1/epsilon) · references · dimensions operations, whatever the size, in
    matrix products over many steps' candidates at once.

    Args:
        quality: in [0, 1], higher is better, [candidates].
        vectors: unit vectors of the candidates, float32 [candidates, dimensions].
        reference: unit vectors of what is to be covered, float32 [references, dimensions].
        size: at most the number of candidates.
        weight: of coverage against quality, in [0, 1].
        epsilon: in (0, 1); each step looks at candidates / size · ln(1/epsilon) at random.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    sample = math.ceil(len(vectors) / size * math.log(1 / epsilon))
    block = max(1, BLOCK // (sample * len(reference)))
    covered = np.zeros(len(reference), dtype=np.float32)
    taken = np.zeros(len(vectors), dtype=bool)
    chosen: list[int] = []
    advance = work("covering the pool", size, "examples")
    while len(chosen) < size:
        left = np.flatnonzero(~taken)
        missing = size - len(chosen)
        if sample >= len(left):
            rows = left
            parts = np.tile(np.arange(len(left)), (missing, 1))
        else:
            # Drawn ahead, so that one product serves many steps. What an earlier step of the block
            # took is passed over; the guarantee's bound on missing the best set stays.
            draws = left[generator.integers(len(left), size=(min(block, missing), sample))]
            rows, inverse = np.unique(draws, return_inverse=True)
            parts = inverse.reshape(draws.shape)
        similar = np.maximum(vectors[rows] @ reference.T, np.float32(0))
        for part in parts:
            free = part[~taken[rows[part]]]
            if not len(free):
                break  # all were taken: draw again
            gain = (1 - weight) * quality[rows[free]] / size
            gain = gain + weight * np.maximum(similar[free] - covered, 0).mean(axis=1)
            best = free[np.argmax(gain)]
            taken[rows[best]] = True
            covered = np.maximum(covered, similar[best])
            chosen.append(int(rows[best]))
            advance(len(chosen))
    return np.array(chosen, dtype=np.int64)
