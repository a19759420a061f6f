"""py3langid over many texts at once: the same model and the same steps, in lockstep.

``LanguageIdentifier.classify`` walks its automaton byte by byte in Python, most of what cleaning
would cost. Here a block of texts is walked together, a byte of each at a time, and scored by one
sparse matrix product. Its sums differ in the last digits: where these could show, py3langid itself
is asked.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

UNDETERMINED = "und"
BLOCK = 4096  # texts at once
ROUNDING = 2e-4  # far above the difference of the two sums (float32, about 2e-5)


class Identifier:
    """The model, with its tables as arrays.

    Args:
        model: of py3langid, restricted to some languages; gives probabilities, and says below which
            one a language is undetermined.
        digits: of the probabilities.
    """

    def __init__(self, model: Any, digits: int) -> None:
        self._model, self._digits = model, digits
        self._next = np.asarray(model.tk_nextmove)
        self._row = np.asarray(model.tk_row, dtype=np.int64) << 8
        self._output = np.asarray(model.tk_output, dtype=np.int64)
        self._weights = np.ascontiguousarray(model.nb_ptc)
        self._prior, self._classes = np.asarray(model.nb_pc), list(model.nb_classes)

    def classify(self, texts: Iterable[str]) -> Iterator[tuple[str, float]]:
        """The language of each text and the probability of the likeliest, rounded."""
        rest, scale = iter(texts), 10**self._digits
        while block := list(islice(rest, BLOCK)):
            scores = self._scores([_encoded(text) for text in block])
            best = scores.argmax(axis=1)
            highest = scores[np.arange(len(block)), best].astype(float)
            second = np.partition(scores, -2, axis=1)[:, -2] if scores.shape[1] > 1 else 0.0
            close = np.abs(highest * scale % 1 - 0.5) < ROUNDING * scale
            close |= np.abs(highest - self._model.min_confidence) < ROUNDING
            close |= highest - second < ROUNDING
            for text, number, sure, ask in zip(
                block, best.tolist(), highest.tolist(), close.tolist(), strict=True
            ):
                code, probability = self._classes[number], sure
                if ask:
                    code, probability = self._model.classify(text)
                elif sure < self._model.min_confidence:
                    code = UNDETERMINED
                yield code, round(probability, self._digits)

    def _scores(self, texts: Sequence[bytes]) -> np.ndarray:
        """The probability of each language, [texts, languages]."""
        from scipy.sparse import csr_matrix

        rows, features = self._features(texts)
        ones = np.ones(len(rows), dtype=np.float32)
        shape = len(texts), len(self._weights)
        counts = csr_matrix((ones, (rows, features)), shape=shape)  # adds up what is repeated
        scores = counts.log1p() @ self._weights + self._prior
        scores[np.diff(counts.indptr) == 0] = 0.0  # nothing is known: all alike
        # As py3langid: a temperature of sqrt(bytes) keeps the probabilities calibrated.
        scores *= np.array([[1 / math.sqrt(len(text) or 1)] for text in texts], dtype=np.float32)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        first: dict[str, int] = {}
        for number, code in enumerate(self._classes):  # two scripts of a language have its code
            if (other := first.setdefault(code, number)) != number:
                scores[:, other] += scores[:, number]
                scores[:, number] = 0.0
        return scores

    def _features(self, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Every occurrence of a feature: the number of its text, and its own."""
        lengths = np.array([len(text) for text in texts])
        order = np.argsort(-lengths, kind="stable")  # so that those that go on stand first
        going = np.searchsorted(-lengths[order], -np.arange(lengths.max(initial=0)), "left")
        letters = np.zeros((len(texts), lengths.max(initial=0)), dtype=np.uint8)
        for place, number in enumerate(order):
            letters[place, : lengths[number]] = np.frombuffer(texts[number], dtype=np.uint8)
        letters = np.ascontiguousarray(letters.T)
        state = np.zeros(len(texts), dtype=np.int64)
        rows, features = [], []
        for position, count in enumerate(going.tolist()):
            state = self._next[self._row[state[:count]] + letters[position, :count]]
            seen = self._output[state]
            there = np.flatnonzero(seen >= 0)
            rows.append(there)
            features.append(seen[there])
        empty = np.empty(0, dtype=np.int64)
        return order[np.concatenate([empty, *rows])], np.concatenate([empty, *features])


def _encoded(text: str) -> bytes:
    """The bytes that the model was trained on."""
    text = text.lower() if text.isupper() else text
    return unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
