"""Tilted mixtures: drawn with the probabilities that are stated, and near no single example."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy.stats import chisquare, kstest

from im_assets.mixtures.design import expected_indicators, information
from im_assets.mixtures.drawing import draw_mixture, draw_mixtures
from im_assets.mixtures.leaning import ScoredPool, kept_percentiles, scored_pool, tilt_of
from im_assets.mixtures.tilting import (
    LEVELS,
    inclusion,
    log_weights,
    normal_scores,
    percentiles,
    random_tilt,
)
from im_assets.scoring.registry import chosen
from im_resources.study import MixtureSettings, load_study

NAMES = ["len", "mtld", "ppl"]


def pool(**sizes: int) -> pd.DataFrame:
    rows = [(f"{source}-{i}", source) for source, count in sizes.items() for i in range(count)]
    return pd.DataFrame(rows, columns=["example_id", "source"])


def sequential(weights: np.ndarray, count: int) -> dict[frozenset[int], float]:
    """The probability of each set, drawn one after the other in proportion to the weights left."""
    found: dict[frozenset[int], float] = {}
    for order in permutations(range(len(weights)), count):
        left, chance = weights.sum(), 1.0
        for place in order:
            chance *= weights[place] / left
            left -= weights[place]
        found[frozenset(order)] = found.get(frozenset(order), 0.0) + chance
    return found


def test_sets_are_drawn_as_often_as_their_weights_say() -> None:
    candidates = pool(a=6)
    logs = np.array([0.0, 1.2, -0.7, 0.4, 2.0, -1.5])
    stated = sequential(np.exp(logs), 3)
    seeds = 4000
    seen = dict.fromkeys(stated, 0)
    places = {name: i for i, name in enumerate(candidates["example_id"])}
    for _, mixture in draw_mixtures(candidates, range(seeds), 3, log_weights=lambda _: logs):
        seen[frozenset(places[i] for i in mixture["example_id"])] += 1
    expected = seeds * np.array(list(stated.values()))
    often = expected > 5  # the usual condition; the rest is one class
    counts = np.array(list(seen.values()))
    classes = [np.append(x[often], x[~often].sum()) for x in (counts, expected)]
    assert chisquare(*classes).pvalue > 1e-3
    # It can fail: the same draws are not those of equal weights.
    even = np.full(len(stated), seeds / len(stated))
    assert chisquare(counts, even).pvalue < 1e-12


@pytest.mark.parametrize("seed", [0, 7, 123_456])
def test_without_a_tilt_it_is_the_random_mixture(seed: int) -> None:
    candidates = pool(a=40, b=25, c=9)
    level = np.full(len(candidates), 0.3)  # the same for all, whatever it is
    [(_, tilted)] = draw_mixtures(candidates, [seed], 20, log_weights=lambda _: level)
    pd.testing.assert_frame_equal(tilted, draw_mixture(candidates, seed, 20))


def test_a_withdrawn_example_that_was_not_drawn_changes_nothing() -> None:
    candidates = pool(a=60)
    logs = np.random.default_rng(2).normal(size=60)
    [(_, before)] = draw_mixtures(candidates, [5], 20, log_weights=lambda _: logs)
    stays = candidates["example_id"].isin(before["example_id"]) | (candidates.index % 2 == 0)
    left = candidates[stays].reset_index(drop=True)
    [(_, after)] = draw_mixtures(left, [5], 20, log_weights=lambda _: logs[stays])
    pd.testing.assert_frame_equal(before, after)


def test_directions_are_uniform_and_of_the_strength() -> None:
    tilts = pd.DataFrame([random_tilt(number, NAMES, 1.5) for number in range(3000)])
    assert np.linalg.norm(tilts, axis=1) == pytest.approx(1.5)
    # On a sphere in three dimensions each coordinate is uniform (Archimedes).
    for name in NAMES:
        assert kstest(tilts[name] / 1.5, "uniform", args=(-1, 2)).pvalue > 1e-3
    assert tilts.corr().to_numpy()[np.triu_indices(3, 1)] == pytest.approx(0, abs=0.08)
    assert random_tilt(3, NAMES, 1.5) == random_tilt(3, NAMES[::-1], 1.5)


@given(
    arrays(float, st.integers(5, 200), elements=st.floats(-1e6, 1e6)),
    st.floats(0.1, 50),
    st.floats(-100, 100),
)
def test_normal_scores_follow_the_order_and_not_the_units(
    values: np.ndarray, scale: float, shift: float
) -> None:
    kept = np.quantile(values, LEVELS)
    z = normal_scores(values, kept)
    order = np.argsort(values, kind="stable")
    assert (np.diff(z[order]) >= -1e-9).all()
    assert np.abs(z).max() <= 2.5759
    for one in np.unique(values):
        assert np.ptp(z[values == one]) == 0


def test_normal_scores_are_about_standard_normal_whatever_the_tails() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.standard_cauchy(20_000), np.exp(3 * rng.normal(size=20_000))):
        z = normal_scores(values, np.quantile(values, LEVELS))
        assert z.mean() == pytest.approx(0, abs=0.02)
        assert z.std() == pytest.approx(1, abs=0.03)
    constant = normal_scores(np.full(7, 3.0), np.full(len(LEVELS), 3.0))
    assert constant == pytest.approx(0)
    # A third of all share the least value: they are in the middle of their third.
    values = np.concatenate([np.zeros(1000), rng.uniform(1, 2, size=2000)])
    z = normal_scores(values, np.quantile(values, LEVELS))
    assert z[0] == pytest.approx(-0.967, abs=0.03)  # the normal quantile of 1/6
    assert np.isnan(normal_scores(np.array([np.nan]), np.quantile(values, LEVELS))).all()


@pytest.mark.parametrize("count", [1, 3, 20, 59, 60])
def test_inclusion_sums_to_what_is_drawn_and_is_what_is_seen(count: int) -> None:
    candidates, rng = pool(a=60), np.random.default_rng(1)
    logs = rng.normal(size=60)
    chance = inclusion(logs, count)
    assert chance.sum() == pytest.approx(count)
    assert (chance <= 1).all()
    seen = np.zeros(60)
    places = {name: i for i, name in enumerate(candidates["example_id"])}
    for _, mixture in draw_mixtures(candidates, range(1500), count, log_weights=lambda _: logs):
        seen[[places[i] for i in mixture["example_id"]]] += 1
    # The noise of 1500 draws, and what is left of the approximation in a source of 60.
    assert seen / 1500 == pytest.approx(chance, abs=0.06)


def scored(candidates: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(candidates), len(NAMES)))
    x[:, 1] += 0.5 * x[:, 0]
    frames = [
        pd.DataFrame(
            {
                "example_id": candidates["example_id"],
                "indicator": name,
                "fingerprint": "f",
                "value": np.exp(x[:, i]),
            }
        )
        for i, name in enumerate(NAMES)
    ]
    return pd.concat(frames, ignore_index=True)


def leaning_pool(candidates: pd.DataFrame) -> ScoredPool:
    scores = scored(candidates)
    return scored_pool(candidates, scores, percentiles(scores), "log")


def test_expected_indicators_are_those_of_the_drawn_mixtures() -> None:
    candidates = pool(a=400, b=300, c=60)
    found, settings = leaning_pool(candidates), MixtureSettings(kind="tilted", size=60)
    tilts = {number: tilt_of(number, NAMES, settings) for number in range(12)}
    held = counted(candidates)
    expected = expected_indicators(held, found.expected(tilts), range(12), 60)
    values = pd.DataFrame(dict(found.values), index=found.examples["example_id"])
    for number, tilt in tilts.items():
        logs = found.log_weights(tilt)
        draws = [
            values.loc[mixture["example_id"]].mean()
            for seed in range(60)
            for _, mixture in draw_of(candidates, number, seed, logs)
        ]
        mean, error = np.mean(draws, axis=0), np.std(draws, axis=0) / np.sqrt(60)
        assert (np.abs(mean - expected.loc[number]) < 4.5 * error + 0.01).all()


def keep(logs: np.ndarray, number: int) -> np.ndarray:
    return logs


def counted(candidates: pd.DataFrame) -> dict[str, int]:
    counts = candidates["source"].value_counts()
    return {str(source): int(count) for source, count in counts.items()}


def draw_of(
    candidates: pd.DataFrame, number: int, seed: int, logs: np.ndarray
) -> Iterator[tuple[int, pd.DataFrame]]:
    """A mixture with the shares of ``number`` whose examples are drawn anew for each seed."""
    from im_assets.mixtures.drawing import allocate, source_weights

    held = counted(candidates)
    counts = allocate(source_weights(sorted(held), number, "uniform"), held, 60)
    parts = []
    for source, count in counts.items():
        mine = (candidates["source"] == source).to_numpy()
        if count:
            of, weights = candidates[mine].reset_index(drop=True), partial(keep, logs[mine])
            [(_, part)] = draw_mixtures(of, [seed], count, log_weights=weights)
            parts.append(part)
    yield number, pd.concat(parts)


def test_tilted_mixtures_spread_and_a_design_tells_more_than_chance() -> None:
    from im_assets.mixtures.series import TYPES, designed

    candidates = pool(a=600, b=500, c=300)
    found = leaning_pool(candidates)
    held = counted(candidates)

    def expected(kind: str, numbers: list[int]) -> pd.DataFrame:
        settings = MixtureSettings.model_validate({"kind": kind})
        tilts = {number: tilt_of(number, NAMES, settings) for number in numbers}
        if kind == "random":
            tilts = {number: dict.fromkeys(NAMES, 0.0) for number in numbers}
        return expected_indicators(held, found.expected(tilts), numbers, 60)

    spread = {kind: expected(kind, list(range(40))).std() for kind in ("random", "tilted")}
    assert (spread["tilted"] > 2 * spread["random"]).all()
    keys = [f"seed-{i:03d}" for i in range(12)]
    series = pd.DataFrame(
        {
            "seed": keys,
            "version": 1,
            "refit": False,
            "retired": False,
            "as_of": 1,
            "number": range(12),
        }
    ).astype(TYPES)
    chosen = designed(series, keys, lambda _, n: expected("designed", list(n)), 200)
    assert chosen["number"].is_unique
    best = information(expected("designed", list(chosen["number"])).to_numpy())
    rng = np.random.default_rng(0)
    usual = [
        information(expected("designed", list(rng.choice(200, 12, False))).to_numpy())
        for _ in range(30)
    ]
    assert best > max(usual)
    # Those that were finetuned on stay, and none is taken twice.
    again = designed(chosen, keys[6:], lambda _, n: expected("designed", list(n)), 200)
    assert list(again["number"][:6]) == list(chosen["number"][:6])
    assert again["number"].is_unique


def test_a_profile_that_cannot_be_drawn_says_what_would_do() -> None:
    demo = load_study("demo").model_dump(mode="json")

    def changed(score: str, **mixtures: object) -> dict[str, object]:
        return demo | {
            "mixtures": demo["mixtures"] | mixtures,
            "scoring": demo["scoring"] | {"score": score},
        }

    from im_resources.study import Study

    with pytest.raises(ValidationError, match=r"set scoring\.score: all"):
        Study.model_validate(changed("members", kind="tilted"))
    with pytest.raises(ValidationError, match="lenn is none of"):
        Study.model_validate(changed("all", kind="tilted", tilt=["lenn"]))
    sets = Study.model_validate(changed("all", kind="tilted", tilt=["knn_6"]))
    from im_assets.mixtures.leaning import tilted_indicators
    from im_assets.scoring.registry import IndicatorError

    with pytest.raises(IndicatorError, match="knn_6 is a property of sets"):
        tilted_indicators(sets)


def test_log_weights_add_up_alike_whatever_the_order_of_names() -> None:
    scores = {name: np.random.default_rng(i).normal(size=50) for i, name in enumerate(NAMES)}
    tilt = random_tilt(4, NAMES, 1.5)
    other = dict(reversed(tilt.items()))
    assert (log_weights(tilt, scores) == log_weights(other, scores)).all()
    assert json.loads(json.dumps(tilt)) == tilt


def test_percentiles_of_a_version_stay_when_the_pool_grows(tmp_path: Path) -> None:
    from im_assets.candidates.versions import next_history
    from im_assets.experiments.lineage import LineageError
    from im_assets.mixtures import leaning
    from im_resources.warehouse import Warehouse

    study = load_study("demo")
    study = type(study).model_validate(
        study.model_dump(mode="json")
        | {
            "scoring": {"score": "all", "indicators": {"len": "response_length"}},
            "mixtures": {"seeds": 6, "size": 4, "kind": "tilted"},
            "univariate": None,
        }
    )

    class Known:
        """The models as far as the percentiles read them."""

        def fingerprint(self, name: str) -> str:
            return "weights"

    [own] = chosen(study.scoring)
    version = own.fingerprint(Known())  # type: ignore[arg-type]
    warehouse = Warehouse(tmp_path / "w.duckdb")
    first, both = pool(a=30), pool(a=30, b=30)

    def scores(of: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "example_id": of["example_id"],
                "indicator": "len",
                "fingerprint": version,
                "value": np.arange(len(of), dtype=float),
            }
        )

    history = next_history(None, first)
    models: object = Known()
    kept = kept_percentiles(study, warehouse, history, scores(first), models)  # type: ignore[arg-type]
    warehouse.replace_table(leaning.PERCENTILES, kept)
    history = next_history(history, both)
    grown = kept_percentiles(study, warehouse, history, scores(both), models)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(
        grown[grown["pool_version"] == 1].reset_index(drop=True), kept, check_dtype=False
    )
    assert grown.loc[grown["pool_version"] == 2, "value"].max() > kept["value"].max()
    with pytest.raises(LineageError, match="for 30 of 60 candidates"):
        kept_percentiles(study, warehouse, history, scores(first), models)  # type: ignore[arg-type]
