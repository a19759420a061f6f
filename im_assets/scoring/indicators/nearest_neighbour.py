"""knn_i: how far apart a set's examples lie in SentenceBERT space. A property of the set."""

import numpy as np

from im_assets.common.tracking import tracked
from im_assets.scoring.registry import SetTooSmall, indicator

# Distances computed at once: bounds the block to 512 × the set's size.
BLOCK = 512


def kth_distance(queries: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    """Euclidean distance of each unit vector to its k-th nearest in ``reference``, float64."""
    distances = []
    for start in range(0, len(queries), BLOCK):
        cosine = queries[start : start + BLOCK] @ reference.T
        kth = -np.partition(-cosine, k - 1, axis=1)[:, k - 1]
        distances.append(np.sqrt(np.maximum(0.0, 2 - 2 * kth.astype(float))))
    return np.concatenate(distances)


def expected_distance(
    embeddings: np.ndarray, size: int, neighbour: int = 6, seed: int = 0, draws: int = 8
) -> np.ndarray:
    """What KNN-i a pool's example would have inside a random mixture of ``size`` examples.

    The rule was fitted on mixtures of that size, and neighbours come closer the denser a set is:
    the neighbours inside the whole pool would be an extrapolation. Averages ``draws`` random
    reference sets of ``size`` - 1 others; the cost is linear in the pool.

    Args:
        embeddings: unit vectors of the pool, [examples, dimensions].

    Raises SetTooSmall when the pool or ``size`` is too small.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    members = min(size, len(embeddings))
    _check_size(members, neighbour)
    total = np.zeros(len(embeddings))
    for _ in tracked(range(draws), f"KNN-{neighbour} in random sets", "draws"):
        chosen = generator.choice(len(embeddings), members, replace=False)
        outside = np.ones(len(embeddings), dtype=bool)
        outside[chosen] = False
        reference = embeddings[chosen]
        total[chosen] += kth_distance(reference, reference, neighbour + 1)
        if outside.any():
            # size - 1 others, as a member of the mixture would have
            total[outside] += kth_distance(embeddings[outside], reference[1:], neighbour)
    return total / draws


def _check_size(members: int, neighbour: int) -> None:
    if members <= neighbour:
        raise SetTooSmall(
            f"KNN-{neighbour} needs a set of more than {neighbour} examples, got {members}"
        )


@indicator("nearest_neighbour", version=1, scope="set", expected=expected_distance)
def nearest_neighbour(embeddings: np.ndarray, neighbour: int = 6) -> np.ndarray:
    """Distance of each member to its ``neighbour``-th nearest other member, [members].

    Args:
        embeddings: unit vectors of the set, [members, dimensions].

    Raises SetTooSmall when the set has too few members.
    """
    _check_size(len(embeddings), neighbour)
    return kth_distance(embeddings, embeddings, neighbour + 1)  # the nearest is the member itself
