"""Near duplicates by word shingles: MinHash-LSH proposes, the exact Jaccard similarity decides.

Sketches and index are datasketch's (Broder 1997; Leskovec et al., *Mining of Massive Datasets*,
chapter 3). The search sees each text once and in order, so its cost grows linearly with the pool,
and its result depends only on the texts and their order. A pair above the threshold is found with a
probability that rises steeply with its similarity; a pair below it is never reported, because every
proposal is checked.

Most texts share no band of their sketch with any other, and need no place in an index: `Bands`
finds the others first, by a sort, so that the index holds these alone.
"""

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
        # Weighted towards finding pairs: false proposals cost time only. Above 0.95 the optimizer
        # would use a single band, which misses pairs at the threshold and which MinHashLSH refuses.
        self._index = MinHashLSH(min(similarity, 0.95), _SKETCH, weights=(0.1, 0.9))
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

    def alike(self) -> set[int]:
        """The keys of those texts that share a band with another: all that an index could find."""
        self._hash()
        if not self._hashes:
            return set()
        hashes = np.concatenate(self._hashes)
        shared = np.zeros(len(hashes), dtype=bool)
        for band in hashes.T:
            order = np.argsort(band)
            same = np.flatnonzero(band[order[1:]] == band[order[:-1]])
            shared[order[same]] = shared[order[same + 1]] = True
        return set(np.array(self._keys)[shared].tolist())

    def _hash(self) -> None:
        if self._waiting:
            values = np.array(self._waiting, dtype=np.uint64)[:, : self._bands * self._rows]
            values = values.reshape(len(values), self._bands, self._rows)
            total = np.zeros(values.shape[:2], dtype=np.uint64)
            for row in range(self._rows):  # wraps: modulus 2**64
                total = total * np.uint64(MULTIPLIER) + values[:, :, row] + np.uint64(1)
            self._hashes.append(total)
            self._waiting = []


def _jaccard(a: Hashes, b: Hashes) -> float:
    common = np.intersect1d(a, b, assume_unique=True).size
    return common / (a.size + b.size - common)
