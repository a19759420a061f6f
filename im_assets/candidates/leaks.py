"""Which rows leak the evaluation set: those that hold much of one of its texts, not any phrase.

Measured on a text means trained on it must not be: a prompt, or a reference output. A row covers
words of such a text by the runs of ``leak_ngram`` words that both have, in the row's prompt or in
its output. A word counts by how rare the rarest of these runs is that covers it: 1 for a run that
no other row has, less with the logarithm of the rows that have it, 0 for one that all have (as in
inverse document frequency). Rows that hold nearly all of a text (``COPY``) are copies and make
nothing common, however many they are. The row leaks when

* the words that it covers, counted so, are at least ``leak_coverage`` of the text's; or it covers
  ``COPY`` of them as they are: a whole copy of something common is a copy; or
* it has a run of ``LONG`` words of it, as much as Lee et al. 2022 (arXiv 2107.06499) take for a
  duplicate: a part of a long text;
* for a text of fewer than ``SHORT`` words, which is about nothing else than what many rows are
  about: it is a prompt, and the row's prompt is the same. A short output alone never leaks.

Brown et al. 2020 (GPT-3, appendix C) drop what shares any 13 words, and Touvron et al. 2023 (Llama
2, appendix A.6) judge by the share of tokens that are covered; their loose bound is 20 %, their
strict one 80 %.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from im_assets.candidates.ngrams import Hashes, WordHashes, ngrams_at
from im_assets.candidates.tracing import Place
from im_assets.common.words import words_of
from im_resources.turns import asked

COPY = 0.9
LONG = 50
SHORT = 8
# In a pool of a few rows nothing shows to be common: rarity is as if there were so many.
LEAST_ROWS = 10_000
SHOWN = 12  # words of the shared run that a reason quotes


@dataclass(frozen=True)
class Leak:
    """What a row shares with an evaluation text.

    Attributes:
        place: of the evaluation row.
        covered: share of the text's words that the row has in runs.
        phrase: the longest run that both have, cut to ``SHOWN`` words.
    """

    eval_id: str
    place: Place
    text: str
    covered: float
    phrase: str

    def __str__(self) -> str:
        return (
            f"leaks evaluation row {self.eval_id}, {self.place}: has {self.covered:.0%} of its "
            f"{self.text}, {self.phrase!r}"
        )


@dataclass(frozen=True)
class _Text:
    """A text of the evaluation set: its words' hashes in order, and what it is."""

    eval_id: str
    place: Place
    text: str
    content: str
    words: Hashes
    prompt: bool


@dataclass
class Counted:
    """What a part of the rows says of leaks: it counts what is common, and keeps what may leak.

    Attributes:
        rows_with: of each run of the evaluation's, in the order of ``Leaks.runs``, how many of the
            rows have it, int64 [runs].
        rows: how many rows there are.
        whole: rows that are a short prompt, by number.
        shared: what the other rows that may leak have of evaluation texts, by number.
    """

    rows_with: np.ndarray
    rows: int = 0
    whole: dict[int, Leak] = field(default_factory=dict)
    shared: dict[int, list["_Shared"]] = field(default_factory=dict)

    def add(self, part: "Counted", first: int) -> None:
        """Add what another part says, whose number 0 is the number ``first`` here."""
        self.rows_with += part.rows_with
        self.rows += part.rows
        self.whole |= {first + number: leak for number, leak in part.whole.items()}
        self.shared |= {first + number: shared for number, shared in part.shared.items()}


class Leaks:
    """Finds rows that leak an evaluation set.

    Rows may be looked at in parts, each by itself and anywhere (``count``). What leaks is judged by
    all of them together (``judge``), and is the same however they were parted.

    Args:
        evaluation: columns eval_id, instruction, input, output, and those of its rows' places
            where they are known.
        n: words of the runs that count.
        coverage: rarity-weighted share of a text's words from which a row leaks it, in (0, 1].
    """

    def __init__(self, evaluation: pd.DataFrame, n: int, coverage: float) -> None:
        self._n, self._coverage = n, coverage
        texts = list(_texts(evaluation, WordHashes()))
        self._short = {
            text.words.tobytes(): text
            for text in reversed(texts)
            if text.prompt and 0 < len(text.words) < max(SHORT, n)
        }
        self._texts = [text for text in texts if len(text.words) >= max(SHORT, n)]
        runs = [ngrams_at(text.words, n) for text in self._texts]
        # Every run of every text, sorted by its hash: which text it is of, and where it begins.
        grams = np.concatenate([*runs, np.empty(0, dtype=np.uint64)])
        order = np.argsort(grams, kind="stable")
        self._grams = grams[order]
        self._owner = np.repeat(np.arange(len(runs)), [len(run) for run in runs])[order]
        self._start = np.concatenate([*(np.arange(len(r)) for r in runs), np.empty(0, int)])[order]
        self.runs = np.unique(self._grams)

    def count(self, rows: Iterable[tuple[int, Hashes, Hashes]]) -> Counted:
        """Look at a part of the rows: number, hashes of the words of prompt and output of each."""
        found = self.nothing()
        for number, prompt, output in rows:
            found.rows += 1
            if (same := self._short.get(prompt.tobytes())) is not None:
                found.whole[number] = Leak(
                    same.eval_id, same.place, same.text, 1.0, _shown(words_of(same.content))
                )
                continue
            if not (parts := [*self._shared(prompt), *self._shared(output)]):
                continue
            if max(part.covered.mean() for part in parts) < COPY:
                mine = np.unique(np.concatenate([part.grams for part in parts]))
                found.rows_with[np.searchsorted(self.runs, mine)] += 1
            # No run counts more than 1, so that the others cannot leak, however rare theirs are.
            if may := [part for part in parts if self._may_leak(part)]:
                found.shared[number] = may
        return found

    def nothing(self) -> Counted:
        """What no rows say, for others to be added to."""
        return Counted(np.zeros(len(self.runs), dtype=np.int64))

    def judge(self, counted: Counted) -> dict[int, Leak]:
        """The rows that leak, by their number; what is rare is judged by all that were counted."""
        rare = _Rarity(self.runs, counted.rows_with, max(counted.rows, LEAST_ROWS))
        found = dict(counted.whole)
        for number, shared in counted.shared.items():
            if leaking := [one for one in shared if self._leaks(one, rare)]:
                found[number] = self._leak(max(leaking, key=lambda one: one.covered.mean()))
        return found

    def _shared(self, words: Hashes) -> Iterator["_Shared"]:
        """What a text of a row has of each evaluation text that it shares a run with."""
        mine = np.unique(ngrams_at(words, self._n))
        first = np.searchsorted(self._grams, mine, "left")
        last = np.searchsorted(self._grams, mine, "right")
        hits = np.flatnonzero(first < last)
        if not len(hits):
            return
        places = np.concatenate([np.arange(first[hit], last[hit]) for hit in hits])
        for owner in np.unique(self._owner[places]):
            at = places[self._owner[places] == owner]
            yield _Shared(
                int(owner),
                self._grams[at],
                self._start[at],
                _covered(self._start[at], self._n, len(self._texts[owner].words)),
            )

    def _may_leak(self, part: "_Shared") -> bool:
        return bool(
            part.covered.mean() >= min(self._coverage, COPY) or _longest(part.covered)[1] >= LONG
        )

    def _leaks(self, part: "_Shared", rare: "_Rarity") -> bool:
        weights = np.zeros(len(part.covered))
        for gram, start in zip(part.grams.tolist(), part.starts, strict=True):
            words = slice(start, start + self._n)
            weights[words] = np.maximum(weights[words], rare.of(gram))
        return bool(
            weights.mean() >= self._coverage
            or part.covered.mean() >= COPY
            or _longest(part.covered)[1] >= LONG
        )

    def _leak(self, part: "_Shared") -> Leak:
        text = self._texts[part.owner]
        start, length = _longest(part.covered)
        run = words_of(text.content)[start : start + length]
        return Leak(text.eval_id, text.place, text.text, float(part.covered.mean()), _shown(run))


@dataclass(frozen=True)
class _Shared:
    """The runs that a row's text and an evaluation text have in common.

    Attributes:
        owner: number of the evaluation text.
        grams, starts: the runs' hashes, and where they begin in it.
        covered: whether each of its words is in one, [words].
    """

    owner: int
    grams: Hashes
    starts: np.ndarray
    covered: np.ndarray


class _Rarity:
    """How rare a run is, in [0, 1], by how many of the rows have it."""

    def __init__(self, runs: Hashes, rows_with: np.ndarray, rows: int) -> None:
        self._runs, self._rows_with, self._scale = runs, rows_with, float(np.log(rows))

    def of(self, gram: int) -> float:
        count = int(self._rows_with[np.searchsorted(self._runs, np.uint64(gram))])
        return 1 - float(np.log(max(count, 1))) / self._scale


def _texts(evaluation: pd.DataFrame, hashes: WordHashes) -> Iterator[_Text]:
    """Prompts and reference outputs; a prompt of several outputs once."""
    prompts: set[str] = set()
    for row in evaluation.to_dict("records"):
        known = row["eval_id"], Place.of(row)
        prompt = asked(row)
        if row["eval_id"] not in prompts:
            prompts.add(row["eval_id"])
            yield _Text(*known, "prompt", prompt, hashes.of(prompt), True)
        output = row["output"]
        yield _Text(*known, "reference output", output, hashes.of(output), False)


def _covered(starts: np.ndarray, n: int, length: int) -> np.ndarray:
    """Which of ``length`` words are in a run of n that begins at one of ``starts``, [length]."""
    covered = np.zeros(length, dtype=bool)
    covered[(starts[:, None] + np.arange(n)).ravel()] = True
    return covered


def _longest(covered: np.ndarray) -> tuple[int, int]:
    """Where the longest stretch of covered words begins, and how long it is."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], covered.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best] - starts[best])


def _shown(words: list[str]) -> str:
    return " ".join(words[:SHOWN]) + (" …" if len(words) > SHOWN else "")
