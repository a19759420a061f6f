"""Mixtures: exact sizes, the same on every machine, and as random as they claim to be."""

import re
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from im_assets.common.digests import digest, uniform
from im_assets.mixtures.drawing import (
    MixtureError,
    allocate,
    draw_mixture,
    draw_mixtures,
    source_weights,
)
from im_resources.study import MixtureSettings, fingerprint
from im_resources.study.fingerprints import settings_content
from im_resources.study.schema.base import Shares

WEIGHT = st.floats(min_value=1e-6, max_value=1, exclude_max=True)
SOURCES = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(WEIGHT, st.integers(0, 60)), min_size=1
)


def pool(**held: int) -> pd.DataFrame:
    return pd.DataFrame(
        [(f"{source}{i}", source) for source, count in held.items() for i in range(count)],
        columns=["example_id", "source"],
    )


@pytest.mark.parametrize("size", [1, 50, 900, 3000])
def test_a_seed_draws_what_it_has_always_drawn(size: int) -> None:
    """Against the hash and the order as they are defined, in plain Python: mixtures that were
    finetuned on are drawn again when a study goes on."""
    candidates = pool(careful=1500, ärger=900, terse=599, one=1)
    counts = candidates["source"].value_counts().sort_index()
    for seed, mixture in draw_mixtures(candidates, [0, 7, 123_456], size):
        weights = {name: uniform(seed, name) for name in map(str, counts.index)}
        sizes = allocate(weights, {str(k): int(v) for k, v in counts.items()}, size)
        ranked = candidates.assign(rank=[digest(seed, i) for i in candidates["example_id"]])
        ranked = ranked.sort_values(["source", "rank"])
        chosen = ranked[ranked.groupby("source").cumcount() < ranked["source"].map(sizes)]
        assert mixture["example_id"].tolist() == chosen["example_id"].tolist()
        assert mixture["source"].tolist() == chosen["source"].tolist()
        assert mixture["position"].tolist() == list(range(size))
        shares = chosen["source"].map(weights).to_numpy() / sum(weights.values())
        assert (mixture["share"].to_numpy() == shares).all()


@given(SOURCES, st.data())
def test_parts_sum_to_the_size_within_what_is_held(
    sources: dict[str, tuple[float, int]], data: st.DataObject
) -> None:
    weights = {s: w for s, (w, _) in sources.items()}
    held = {s: h for s, (_, h) in sources.items()}
    size = data.draw(st.integers(0, sum(held.values())))
    parts = allocate(weights, held, size)
    assert parts.keys() == sources.keys()
    assert sum(parts.values()) == size
    assert all(0 <= parts[s] <= held[s] for s in sources)


@given(st.dictionaries(st.sampled_from("abcdefgh"), WEIGHT, min_size=1), st.integers(0, 3000))
def test_parts_are_proportional_where_nothing_runs_out(
    weights: dict[str, float], size: int
) -> None:
    parts = allocate(weights, dict.fromkeys(weights, size + 1), size)
    total = sum(weights.values())
    assert all(abs(parts[s] - size * w / total) < 1 + 1e-9 for s, w in weights.items())


@given(SOURCES, st.data())
def test_a_heavier_source_gives_at_least_as_much(
    sources: dict[str, tuple[float, int]], data: st.DataObject
) -> None:
    held = {s: h for s, (_, h) in sources.items()}
    size = data.draw(st.integers(0, sum(held.values())))
    parts = allocate({s: w for s, (w, _) in sources.items()}, held, size)
    for s, (weight, _) in sources.items():
        for other, (less, _) in sources.items():
            if weight > less * (1 + 1e-9):
                assert parts[s] >= min(parts[other], held[s])


def test_what_a_source_cannot_give_goes_to_the_others_in_proportion() -> None:
    weights = {"a": 0.6, "b": 0.3, "c": 0.1}
    assert allocate(weights, {"a": 10, "b": 99, "c": 99}, 50) == {"a": 10, "b": 30, "c": 10}
    assert allocate(weights, {"a": 10, "b": 20, "c": 99}, 50) == {"a": 10, "b": 20, "c": 20}
    assert allocate(weights, {"a": 1, "b": 2, "c": 3}, 6) == {"a": 1, "b": 2, "c": 3}
    assert allocate({"b": 0.5, "a": 0.5}, {"a": 9, "b": 9}, 3) == {"a": 2, "b": 1}


def test_a_written_down_mixture() -> None:
    """Any platform, Python and pandas has to draw this one: finished studies depend on it."""
    mixture = draw_mixture(pool(careful=5, howto=4, terse=3), seed=7, size=6)
    assert list(mixture["position"]) == [0, 1, 2, 3, 4, 5]
    assert " ".join(mixture["example_id"]) == "howto0 howto2 howto1 howto3 terse2 terse0"
    shares = mixture.drop_duplicates("source").set_index("source")["share"]
    golden = {"howto": 0.7961179909709852, "terse": 0.15667241891702377}
    assert shares.to_dict() == pytest.approx(golden, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.randoms(use_true_random=False))
def test_a_mixture_has_its_size_no_repeats_and_does_not_depend_on_row_order(
    seed: int, size: int, random: Random
) -> None:
    candidates = pool(a=12, b=15, c=3)
    mixture = draw_mixture(candidates, seed, size)
    assert len(mixture) == size
    assert mixture["example_id"].is_unique
    assert (mixture["example_id"].str[0] == mixture["source"]).all()
    order = list(range(len(candidates)))
    random.shuffle(order)
    shuffled = candidates.iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(draw_mixture(shuffled, seed, size), mixture)


def test_sources_take_their_share() -> None:
    mixture = draw_mixture(pool(a=3000, b=3000, c=3000), seed=3, size=2000)
    weights = {s: uniform(3, s) for s in "abc"}
    counts = mixture["source"].value_counts()
    for source, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(counts[source] - 2000 * share) < 1
        assert mixture.loc[mixture["source"] == source, "share"].unique() == pytest.approx(share)


def test_seeds_differ() -> None:
    candidates = pool(a=40, b=40)
    drawn = {frozenset(draw_mixture(candidates, seed, 20)["example_id"]) for seed in range(50)}
    assert len(drawn) == 50


def test_every_example_is_equally_likely() -> None:
    """Within a source: 200 mixtures that take half of it, each example near half of the time."""
    candidates = pool(a=30)
    seen = pd.concat(draw_mixture(candidates, seed, 15) for seed in range(200))
    counts = seen["example_id"].value_counts()
    assert len(counts) == 30
    assert counts.between(70, 130).all()  # 4 standard deviations


def test_weights_are_uniform_and_independent() -> None:
    draws = np.array([[uniform(seed, name) for name in ("a", "b")] for seed in range(2000)])
    assert ((draws > 0) & (draws < 1)).all()
    assert kstest(draws[:, 0], "uniform").pvalue > 0.05
    assert kstest(draws[:, 1], "uniform").pvalue > 0.05
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.05


def shares_of(sources: str, how: Shares, seeds: int = 4000) -> np.ndarray:
    """The shares of each seed's mixture, [seeds, sources]."""
    weights = [source_weights(sources, seed, how) for seed in range(seeds)]
    table = np.array([[w[source] for source in sources] for w in weights])
    return table / table.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("sources", ["ab", "abcd", "abcdefgh"])
def test_the_shares_of_dirichlet_have_its_moments(sources: str) -> None:
    """Dirichlet(1): mean 1/S, variance (S - 1) / (S² (S + 1)), a share below x with probability
    1 - (1 - x)^(S - 1). Tolerances: 5 standard errors or more of 4000 seeds."""
    drawn, count = shares_of(sources, "dirichlet"), len(sources)
    variance = (count - 1) / (count**2 * (count + 1))
    assert drawn.mean(axis=0) == pytest.approx(1 / count, abs=5 * np.sqrt(variance / 4000))
    assert drawn.var(axis=0) == pytest.approx(variance, rel=0.2)
    assert drawn.var(axis=0).mean() == pytest.approx(variance, rel=0.1)
    for share in drawn.T:
        assert kstest(share, lambda x: 1 - (1 - x) ** (count - 1)).pvalue > 1e-3


def test_the_papers_shares_have_half_that_variance() -> None:
    """Of two sources 3/4 - ln 2 exactly, by integrating x² over the density of r / (r + r'); of
    more, against another generator."""
    assert shares_of("ab", "uniform").var() == pytest.approx(0.75 - np.log(2), rel=0.06)
    r = np.random.default_rng(5).uniform(size=(100_000, 4))
    usual = float((r / r.sum(axis=1, keepdims=True)).var(axis=0).mean())
    found = float(shares_of("abcd", "uniform").var(axis=0).mean())
    assert found == pytest.approx(usual, rel=0.06)
    assert 0.4 < found / (3 / (16 * 5)) < 0.6


def test_a_mixture_of_dirichlet_shares_follows_its_seed_and_its_shares() -> None:
    candidates = pool(a=3000, b=3000, c=3000)
    mixture = draw_mixture(candidates, 3, 2000, "dirichlet")
    pd.testing.assert_frame_equal(draw_mixture(candidates, 3, 2000, "dirichlet"), mixture)
    weights = {s: -np.log(uniform(3, s)) for s in "abc"}
    counts = mixture["source"].value_counts()
    for source, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(counts.get(source, 0) - 2000 * share) < 1
    assert len(draw_mixture(candidates, 3, 2000).merge(mixture, on="example_id")) < 2000


def test_the_setting_counts_only_where_it_is_not_the_default() -> None:
    """Mixtures that were drawn before there was a choice are what they were."""
    before, other = MixtureSettings(seeds=8), MixtureSettings(seeds=8, shares="dirichlet")
    assert "shares" not in settings_content(before)
    assert fingerprint(before) != fingerprint(other)


def test_too_few_candidates_say_what_is_there_and_what_would_do() -> None:
    message = "a mixture of 9 examples cannot be drawn from 8 candidates (a: 5, b: 3)"
    with pytest.raises(MixtureError, match=re.escape(message)) as error:
        draw_mixture(pool(a=5, b=3), seed=0, size=9)
    assert "mixtures.size" in str(error.value)
    assert len(draw_mixture(pool(a=5, b=3), seed=0, size=8)) == 8
