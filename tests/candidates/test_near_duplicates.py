"""The index finds what it promises, and its cost stays linear where everything looks alike."""

import random

import pytest

from im_assets.candidates import near_duplicates
from im_assets.candidates.near_duplicates import NearDuplicates
from im_assets.candidates.ngrams import Hashes, WordHashes, ngrams


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
        assert index.find_or_add(2 * number, *[hashes.of(" ".join(words))] * 2) is None
        words[60] = "changed"  # at most 10 of 230 shingles: similarity about 0.92
        found += index.find_or_add(2 * number + 1, *[hashes.of(" ".join(words))] * 2) == 2 * number
    assert found >= 190


def test_a_crowd_of_lookalikes_is_not_compared_pair_by_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0

    def counted(a: Hashes, b: Hashes) -> float:
        nonlocal compared
        compared += 1
        return jaccard(a, b)

    jaccard = near_duplicates._jaccard
    monkeypatch.setattr(near_duplicates, "_jaccard", counted)
    hashes, draw = WordHashes(), random.Random(0)
    index = NearDuplicates(0.99)
    for number in range(600):
        words = [f"word{i}" for i in range(300)]
        words[draw.randrange(300)] = str(number)  # one word: about 0.97 alike
        index.find_or_add(number, *[hashes.of(" ".join(words))] * 2)
    assert 64 * 100 < compared <= 64 * 600  # all pairs: 179,700


def test_what_shares_no_band_needs_no_index() -> None:
    """The same are found as when every text is looked for: families of near and of less near
    texts, copies, and short ones, among many that resemble nothing."""
    hashes, draw = WordHashes(), random.Random(1)
    texts: list[str] = []
    for _ in range(1500):
        words = [str(draw.random()) for _ in range(draw.choice([3, 5, 40, 90]))]
        texts.append(" ".join(words))
        while draw.random() < 0.4:
            for _ in range(draw.randrange(4)):
                words[draw.randrange(len(words))] = str(draw.random())
            texts.append(" ".join(words))
    draw.shuffle(texts)
    whole, index = NearDuplicates(0.8), NearDuplicates(0.8)
    bands = index.bands
    for number, text in enumerate(texts):
        bands.add(number, hashes.of(text))
    keys, hashed = bands.hashes()
    places, groups = near_duplicates.alike(hashed, len(keys))
    alike = dict(zip(keys[places].tolist(), groups.tolist(), strict=True))
    expected = [whole.find_or_add(n, *[hashes.of(text)] * 2) for n, text in enumerate(texts)]
    found = [
        index.find_or_add(n, *[hashes.of(text)] * 2) if n in alike else None
        for n, text in enumerate(texts)
    ]
    assert found == expected
    assert 200 < sum(other is not None for other in found) < len(alike) < len(texts)
    # Nothing is found in another group, so that each may have an index of its own.
    assert all(alike[n] == alike[other] for n, other in enumerate(found) if other is not None)
    by_group: dict[int, NearDuplicates] = {}
    again = [
        by_group.setdefault(alike[n], NearDuplicates(0.8)).find_or_add(n, *[hashes.of(text)] * 2)
        if n in alike
        else None
        for n, text in enumerate(texts)
    ]
    assert again == expected
    assert len(by_group) > 100
