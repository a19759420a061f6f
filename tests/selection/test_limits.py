"""Quotas and near duplicates hold for any strategy, and what cannot be had is said."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.selection import limits
from im_assets.selection.choosing import choose
from im_assets.selection.pool import Pool
from im_assets.selection.selecting import SelectionError
from im_resources.study import SelectionSettings, StrategySettings
from tests.selection.pools import small_pool


def one_by_one(pool: Pool, order: list[int], size: int, limit: SelectionSettings) -> list[int]:
    """The walk, as plainly as it can be written."""
    kept: list[int] = []
    vectors = pool.embeddings().astype(float)
    for position in order:
        held = pool.examples.iloc[[*kept, position]]
        full = any(
            (held[column] == held[column].iloc[-1]).sum() > max(1, int(share * size + 1e-9))
            for column, share in limit.max_share.items()
        )
        threshold = limit.near_duplicate_similarity
        alike = threshold and any(vectors[position] @ vectors[k] > threshold for k in kept)
        if not full and not alike:
            kept.append(position)
        if len(kept) == size:
            break
    return kept


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(5, 60),
    size=st.integers(1, 20),
    share=st.none() | st.floats(0.1, 1),
    similarity=st.none() | st.floats(0.5, 0.99),
    name=st.sampled_from(["rule", "random"]),
    seed=st.integers(0, 3),
)
def test_the_first_allowed_of_any_order_are_kept(
    count: int, size: int, share: float | None, similarity: float | None, name: str, seed: int
) -> None:
    pool, size = small_pool(count, seed), min(size, count)
    limit = SelectionSettings(
        strategy=name,
        max_share={} if share is None else {"category": share},
        near_duplicate_similarity=similarity,
    )
    order = choose(StrategySettings(strategy=name), pool, count, seed).tolist()
    expected = one_by_one(pool, order, size, limit)
    if len(expected) < size:
        with pytest.raises(SelectionError, match=rf"leave {len(expected)} of the {size} examples"):
            choose(limit, pool, size, seed)
    else:
        assert choose(limit, pool, size, seed).tolist() == expected


def test_duplicates_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = small_pool(40)
    limit = SelectionSettings(strategy="rule", near_duplicate_similarity=0.8)
    whole = choose(limit, pool, 10, 0).tolist()
    monkeypatch.setattr(limits, "BLOCK", 3)
    assert choose(limit, pool, 10, 0).tolist() == whole


def test_no_two_of_a_selection_are_alike_and_the_better_one_stays() -> None:
    pool = small_pool(60)
    vectors = pool.embeddings().copy()
    best = choose(StrategySettings(strategy="rule"), pool, 2, 0)
    vectors[best[1]] = vectors[best[0]]  # the second best repeats the best
    twins = small_pool(60, embeddings=lambda: vectors)
    limit = SelectionSettings(strategy="rule", near_duplicate_similarity=0.9)
    chosen = choose(limit, twins, 12, 0)
    assert best[0] in chosen
    assert best[1] not in chosen
    cosine = vectors[chosen] @ vectors[chosen].T
    assert np.max(cosine - 2 * np.eye(12)) <= 0.9


def test_set_aware_is_asked_for_more_until_the_quota_is_met() -> None:
    pool = small_pool(200)
    limit = SelectionSettings(strategy="set_aware", max_share={"category": 0.25})
    chosen = choose(limit, pool, 40, 0)
    counts = pool.examples["category"].iloc[chosen].value_counts()
    assert len(chosen) == 40
    assert counts.tolist() == [10, 10, 10, 10]


def test_limits_apply_to_an_arm_only_when_they_are_given() -> None:
    pool, arm = small_pool(40), StrategySettings(strategy="random")
    limit = SelectionSettings(max_share={"category": 0.25})
    free = choose(arm, pool, 16, 0)
    kept = choose(arm, pool, 16, 0, limit)
    assert pool.examples["category"].iloc[free].value_counts().max() > 4
    assert pool.examples["category"].iloc[kept].value_counts().max() == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_share": {"source": 0.5}},
            r"leave 5 of the 10 .*pool: 30.*raise selection.max_share",
        ),
        ({"near_duplicate_similarity": 1e-6}, r"leave \d of the 10 examples wanted"),
    ],
)
def test_what_cannot_be_had_is_counted(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        choose(SelectionSettings(strategy="random", **changes), small_pool(30), 10, 0)


def test_a_quota_on_a_column_that_is_not_there_is_named() -> None:
    pool = small_pool(9)
    bare = small_pool(9, examples=pool.examples.drop(columns="category"))
    with pytest.raises(
        SelectionError, match=r"max_share\.category: .*no column 'category'; it has"
    ):
        choose(SelectionSettings(max_share={"category": 0.5}), bare, 3, 0)


@pytest.mark.parametrize("name", ["rule", "random", "set_aware"])
def test_strata_have_the_shares_of_the_pool(name: str) -> None:
    pool = small_pool(200)
    languages = np.array(["en"] * 150 + ["zh"] * 40 + ["th"] * 10)
    pool = small_pool(200, examples=pool.examples.assign(language=languages))
    limit = SelectionSettings(strategy=name, stratify="language")
    counts = pool.examples["language"].iloc[choose(limit, pool, 40, 0)].value_counts()
    assert counts.to_dict() == {"en": 30, "zh": 8, "th": 2}
    # Within a stratum, the strategy's own order.
    if name == "rule":
        order = choose(StrategySettings(strategy=name), pool, 200, 0)
        best = order[languages[order] == "zh"][:8]
        assert set(best) < set(choose(limit, pool, 40, 0))


def test_a_language_has_a_quota() -> None:
    languages = ["zh"] * 45 + ["en"] * 15
    pool = small_pool(60, examples=small_pool(60).examples.assign(language=languages))
    chosen = choose(SelectionSettings(max_share={"language": 0.5}), pool, 20, 0)
    assert pool.examples["language"].iloc[chosen].value_counts().to_dict() == {"zh": 10, "en": 10}
    with pytest.raises(SelectionError, match=r"selection\.stratify: .*no column 'language'"):
        choose(SelectionSettings(stratify="language"), small_pool(9), 3, 0)
