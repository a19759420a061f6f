"""Near duplicates by word shingles: MinHash-LSH proposes, the exact Jaccard similarity decides.

Sketches and index are datasketch's (Broder 1997; Leskovec et al., *Mining of Massive Datasets*,
chapter 3). The search sees each text once and in order, so its cost grows linearly with the pool,
and its result depends only on the texts and their order. A pair above the threshold is found with a
probability that rises steeply with its similarity; a pair below it is never reported, because every
proposal is checked.

Most texts share no band of their sketch with any other, and need no place in an index. So the bands
of all texts are joined first (`alike`), by a sort of numbers: it leaves those that share one, and
parts them into groups, none of which has to do with any other. Each group has an index of its own,
and only its texts have to be read again.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from im_assets.candidates.ngrams import MULTIPLIER, Hashes, ngrams, ngrams_at

SHINGLE = 5
_SKETCH = 128
# Texts of one template can all resemble one another without being duplicates, and comparing all
# pairs of such a crowd would be quadratic. A text is compared with so many look-alikes at most, the
# earliest, and one that has as many is kept but not indexed.
_CROWD = 64
_BLOCK = 4096  # sketches hashed at once


class NearDuplicates:
    """An index of the texts kept so far.

    Args:
        similarity: Jaccard similarity of two texts' sets of 5-word shingles, in (0, 1], from which
            the later one is a near duplicate.
    """

    def __init__(self, similarity: float) -> None:
        # Imported here because it brings scipy: too slow for loading the code location.
        from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

        self._similarity = similarity
        self._empty = MinHash(_SKETCH, seed=1, hashfunc=int)
        self._index = MinHashLSH(num_perm=_SKETCH, params=_bands_and_rows(similarity))
        self._indexed: dict[int, tuple[Hashes, Hashes]] = {}

    @property
    def bands(self) -> "Bands":
        """What tells beforehand which texts have to be looked for in this index."""
        return Bands(self._empty.copy(), self._index.b, self._index.r)

    def find_or_add(self, key: int, words: Hashes, core: Hashes) -> int | None:
        """The smallest key whose text resembles this one; if none does, index the text: None.

        Args:
            key: the text's number; keys must rise.
            words: hashes of its words; a text of fewer than five is never a near duplicate.
            core: hashes of the words that have to be alike by themselves as well: two questions
                about one long passage share nearly all words and are no duplicates.
        """
        shingles = ngrams(words, SHINGLE)
        if not len(shingles):
            return None
        sketch = self._empty.copy()
        sketch.update_batch((shingles >> np.uint64(32)).tolist())
        lookalikes = sorted(self._index.query(sketch))
        core = ngrams(core, SHINGLE) if len(core) >= SHINGLE else np.unique(core)
        for other in lookalikes[:_CROWD]:
            whole, theirs = self._indexed[other]
            if _jaccard(shingles, whole) < self._similarity:
                continue
            if _jaccard(core, theirs) >= self._similarity:
                return int(other)
        if len(lookalikes) < _CROWD:
            self._index.insert(key, sketch)
            self._indexed[key] = shingles, core
        return None


@lru_cache
def _bands_and_rows(similarity: float) -> tuple[int, int]:
    """How a sketch is cut, which takes a search: bands, and numbers of each."""
    from datasketch import MinHashLSH

    # Weighted towards finding pairs: false proposals cost time only. Above 0.95 the optimizer
    # would use a single band, which misses pairs at the threshold and which MinHashLSH refuses.
    index = MinHashLSH(min(similarity, 0.95), _SKETCH, weights=(0.1, 0.9))
    return index.b, index.r


class Bands:
    """The bands of many texts' sketches, each as one hash: 8 bytes a band and text."""

    def __init__(self, sketch: Any, bands: int, rows: int) -> None:
        self._sketch, self._bands, self._rows = sketch, bands, rows
        self._keys: list[int] = []
        self._waiting: list[np.ndarray] = []
        self._hashes: list[np.ndarray] = []

    def add(self, key: int, words: Hashes) -> None:
        """Add a text (see ``NearDuplicates.find_or_add``); any further ones only cost time."""
        shingles = ngrams_at(words, SHINGLE)
        if not len(shingles):
            return
        self._sketch.clear()
        self._sketch.update_batch((shingles >> np.uint64(32)).tolist())
        self._keys.append(key)
        self._waiting.append(self._sketch.hashvalues)
        if len(self._waiting) == _BLOCK:
            self._hash()

    def hashes(self) -> tuple[np.ndarray, Hashes]:
        """The keys of the texts that have a sketch, int64 [texts], and the hashes of their bands,
        [bands, texts]."""
        self._hash()
        hashes = np.concatenate([np.empty((0, self._bands), np.uint64), *self._hashes])
        return np.array(self._keys, dtype=np.int64), np.ascontiguousarray(hashes.T)

    def _hash(self) -> None:
        if self._waiting:
            values = np.array(self._waiting, dtype=np.uint64)[:, : self._bands * self._rows]
            values = values.reshape(len(values), self._bands, self._rows)
            total = np.zeros(values.shape[:2], dtype=np.uint64)
            for row in range(self._rows):  # wraps: modulus 2**64
                total = total * np.uint64(MULTIPLIER) + values[:, :, row] + np.uint64(1)
            self._hashes.append(total)
            self._waiting = []


def alike(bands: Iterable[Hashes], texts: int) -> tuple[np.ndarray, np.ndarray]:
    """The texts that share a band with another: all that an index could find.

    Args:
        bands: of each band in turn, its hash in every text, [texts].

    Returns:
        Their places, int64, rising, and the group of each: texts share a band with texts of their
        own group alone, directly or through others.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    shared = np.zeros(texts, dtype=bool)
    groups = np.arange(texts, dtype=np.int32 if texts < 1 << 31 else np.int64)
    for band in bands:
        order = np.argsort(band)
        ordered = band[order]
        same = np.flatnonzero(ordered[1:] == ordered[:-1])
        if not len(same):
            continue
        one, other = order[same], order[same + 1]
        shared[one] = shared[other] = True
        edges = np.ones(len(same), dtype=bool), (groups[one], groups[other])
        groups = connected_components(coo_matrix(edges, (texts, texts)), directed=False)[1][groups]
    places = np.flatnonzero(shared)
    return places, groups[places]


def _jaccard(a: Hashes, b: Hashes) -> float:
    common = np.intersect1d(a, b, assume_unique=True).size
    return common / (a.size + b.size - common)
