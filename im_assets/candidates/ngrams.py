"""Word n-grams as 64-bit hashes: the common ground of near-duplicate search and the leak check.

Words are lower-cased and without punctuation (``im_assets/common/words.py``), so layout does not
count. Each distinct word is hashed once (BLAKE2b); an n-gram is a polynomial over its words'
hashes, computed for a whole text at once. Hashes are the same on every platform and in every
process, and 64 bits make a chance collision negligible (about 1e-7 for ten million n-grams against
two hundred thousand).
"""

import hashlib

import numpy as np
import numpy.typing as npt

from im_assets.common.words import words_of

Hashes = npt.NDArray[np.uint64]

MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that no word's hash loses bits


_REMEMBERED = 1_000_000  # words: about 150 MB; numbers and names never end


class WordHashes(dict[str, int]):
    """Hashes words, remembering those of the texts before; one instance serves a whole pool."""

    def __init__(self) -> None:
        super().__init__()
        # A row's texts are asked for by several tests, one after the other.
        self._last: dict[str, Hashes] = {}

    def __missing__(self, word: str) -> int:
        if len(self) == _REMEMBERED:
            self.clear()
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "little")
        return value

    def of(self, text: str) -> Hashes:
        """The hashes of a text's words, in order, shape (words,)."""
        if (known := self._last.get(text)) is None:
            known = np.array([self[word] for word in words_of(text)], dtype=np.uint64)
            if len(self._last) == 8:
                self._last.clear()
            self._last[text] = known
        return known


def ngrams(words: Hashes, n: int) -> Hashes:
    """The distinct n-grams of a text's word hashes, sorted; none if there are fewer words."""
    return np.unique(ngrams_at(words, n))


def ngrams_at(words: Hashes, n: int) -> Hashes:
    """The n-gram that begins at each word, [words - n + 1]; none if there are fewer words."""
    count = len(words) - n + 1
    if n < 1 or count < 1:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(n):  # integer arithmetic of numpy wraps, which is the modulus 2**64
        total = total * np.uint64(MULTIPLIER) + words[offset : offset + count]
    return total
