"""The index finds what it promises, and its cost stays linear where everything looks alike."""

import random
import time

from im_assets.candidates.near_duplicates import NearDuplicates
from im_assets.candidates.ngrams import WordHashes, ngrams


def test_ngrams_are_the_distinct_runs_of_words() -> None:
    hashes = WordHashes()
    assert len(ngrams(hashes.of("a b a b a b"), 2)) == 2
    assert set(ngrams(hashes.of("A, b!"), 2)) == set(ngrams(hashes.of("a b"), 2))
    assert set(ngrams(hashes.of("a b"), 2)) != set(ngrams(hashes.of("b a"), 2))
    assert len(ngrams(hashes.of("a b"), 3)) == 0
    assert len(ngrams(hashes.of(""), 0)) == 0


def test_nearly_all_pairs_above_the_threshold_are_found() -> None:
    hashes, draw = WordHashes(), random.Random(0)
    index, found = NearDuplicates(0.9), 0
    for number in range(200):
        words = [str(draw.random()) for _ in range(120)]
        assert index.find_or_add(2 * number, hashes.of(" ".join(words))) is None
        words[60] = "changed"  # at most 10 of 230 shingles: similarity about 0.92
        found += index.find_or_add(2 * number + 1, hashes.of(" ".join(words))) == 2 * number
    assert found >= 190


def test_a_crowd_of_lookalikes_is_not_compared_pair_by_pair() -> None:
    hashes, draw = WordHashes(), random.Random(0)
    template = [f"word{i}" for i in range(80)]
    texts = []
    for _ in range(4000):
        words = template.copy()
        words[draw.randrange(80)] = str(draw.random())
        words[draw.randrange(80)] = str(draw.random())
        texts.append(hashes.of(" ".join(words)))
    index, start = NearDuplicates(0.97), time.process_time()
    for number, text in enumerate(texts):
        index.find_or_add(number, text)
    assert time.process_time() - start < 20  # all pairs: minutes
