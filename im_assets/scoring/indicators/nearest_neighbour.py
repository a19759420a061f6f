"""knn_i: how far apart a set's examples lie in SentenceBERT space. A property of the set."""

import numpy as np

from im_assets.common.tracking import work
from im_assets.scoring.embeddings import blocks, rows_of
from im_assets.scoring.registry import SetTooSmall, indicator

# Distances computed at once: bounds the block to 512 × the set's size.
BLOCK = 512
# An example of a pool is compared with a sample of it: of at most so many mixtures' size, and with
# so many comparisons over all examples (about a minute of one core, of 768 dimensions).
MIXTURES = 8
PAIRS = 1 << 31
NUMBERS = 1 << 23  # cosines computed at once, 32 MB
# Of the probability that the neighbour is farther than those that are looked at. Distances are at
# most 2, so that the expectation is off by less than twice this.
NEGLIGIBLE = 1e-9


def kth_distance(queries: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    """Euclidean distance of each unit vector to its k-th nearest in ``reference``, float64."""
    distances = []
    for start in range(0, len(queries), BLOCK):
        cosine = queries[start : start + BLOCK] @ reference.T
        kth = -np.partition(-cosine, k - 1, axis=1)[:, k - 1]
        distances.append(_distance(kth))
    return np.concatenate(distances)


def expected_distance(embeddings: np.ndarray, size: int, neighbour: int = 6) -> np.ndarray:
    """What KNN-i a pool's example would have inside a random mixture of ``size`` examples.

    The rule was fitted on mixtures of that size, and neighbours come closer the denser a set is:
    the neighbours inside the whole pool would be an extrapolation.

    The expectation in closed form: the place that the ``neighbour``-th nearest of a random set has
    among all others, by their distance, is negative hypergeometric. Exact where the pool is not
    larger than ``MIXTURES`` mixtures, nor than ``PAIRS`` allow (46,000 examples). Else the same
    within a random sample of the pool, of a mixture's size at least: comparisons stay below
    ``PAIRS`` up to ``PAIRS / size`` examples, and are linear in the pool beyond.

    Args:
        embeddings: unit vectors of the pool, [examples, dimensions].

    Raises SetTooSmall when the pool or ``size`` is too small.
    """
    count = len(embeddings)
    members = min(size, count)
    _check_size(members, neighbour)
    sampled = min(count, MIXTURES * members, max(members, PAIRS // count))
    generator = np.random.Generator(np.random.PCG64(0))
    chosen = np.sort(generator.choice(count, sampled, replace=False))
    reference = rows_of(embeddings, chosen).T
    inside = np.zeros(count, dtype=bool)
    inside[chosen] = True
    # The nearest of an example of the sample is itself.
    own = np.insert(_places(sampled - 1, members - 1, neighbour), 0, 0.0)
    # Not more are drawn than there are: a sample of a mixture's size, without the example itself.
    other = _places(sampled, members - 1, neighbour)
    nearest = max(len(own), len(other))
    weights = np.zeros((2, nearest))
    weights[1, : len(own)], weights[0, : len(other)] = own, other
    expected = np.empty(count)
    advance = work(f"KNN-{neighbour} in random sets", count, "examples")
    for rows, vectors in blocks(embeddings, NUMBERS * embeddings.shape[1] // sampled):
        cosine = vectors @ reference
        last = sampled - nearest
        if last:
            cosine = np.partition(cosine, last, axis=1)[:, last:]
        cosine.sort(axis=1)
        weight = weights[inside[rows].astype(int)]
        expected[rows] = np.einsum("ij,ij->i", _distance(cosine[:, ::-1]), weight)
        advance(rows.stop)
    return expected


def _places(others: int, drawn: int, neighbour: int) -> np.ndarray:
    """The probability that the ``neighbour``-th nearest of ``drawn`` examples, drawn from
    ``others``, is the nearest, second nearest, … of these; up to where it is negligible."""
    from scipy.stats import nhypergeom  # slow to import

    left = others - drawn
    # Those that are nearer and were not drawn: successes before so many failures.
    before = nhypergeom.pmf(np.arange(left + 1), others, left, neighbour) if left else np.ones(1)
    places = np.concatenate([np.zeros(neighbour - 1), before])
    enough = int(np.searchsorted(np.cumsum(places), 1 - NEGLIGIBLE)) + 1
    places = places[:enough]
    return places / places.sum()


def _distance(cosine: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sqrt(np.maximum(0.0, 2 - 2 * cosine.astype(float)))
    return found


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
