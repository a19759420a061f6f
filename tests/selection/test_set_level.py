"""Any property of a set goes through the selection, not KNN-i alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from im_assets.scoring.indicators.nearest_neighbour import expected_distance, nearest_neighbour
from im_assets.scoring.registry import BACKENDS, IndicatorError, indicator, set_level
from im_assets.selection.assets import set_properties
from im_assets.selection.choosing import choose
from im_assets.selection.pool import pool_indicators
from im_resources.study import ModelSource, ScoringSettings, StrategySettings, Study, load_study
from tests.registries import isolate
from tests.selection.pools import linear_rule, small_pool

POOL, SIZE = 40, 10
IDS = [f"id-{i:02d}" for i in range(POOL)]
WANTED = {
    "spread": "spread",
    "knn_2": {"backend": "nearest_neighbour", "options": {"neighbour": 2}},
}


@pytest.fixture(autouse=True)
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second property of a set, one number for the whole: the mean distance of two members."""
    isolate(BACKENDS, monkeypatch)

    @indicator("spread", version=1, scope="set")
    def spread(embeddings: np.ndarray) -> float:
        return float(pdist(embeddings).mean())


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"never loaded: its vectors are in the cache")
    demo = load_study("demo")
    changes = {
        "models": demo.models.model_copy(update={"embedding": ModelSource(path=str(tmp_path))}),
        "scoring": ScoringSettings.model_validate({"indicators": WANTED}),
        "mixtures": demo.mixtures.model_copy(update={"size": SIZE}),
    }
    return demo.model_copy(update=changes)


def embed() -> np.ndarray:
    """Random unit vectors for the pool."""
    vectors = np.random.default_rng(0).normal(size=(POOL, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def test_a_pools_example_has_what_it_would_have_in_a_random_set(study: Study) -> None:
    vectors = embed()
    empty = pd.DataFrame(columns=["example_id", "indicator", "value"])
    frame = pool_indicators(IDS, empty, study, lambda: vectors)
    assert list(frame.columns) == ["spread", "knn_2"]
    np.testing.assert_allclose(frame["knn_2"], expected_distance(vectors, SIZE, 2))
    generator = np.random.default_rng(1)
    drawn = [generator.choice(POOL, SIZE, replace=False) for _ in range(3000)]
    within = np.mean([pdist(vectors[rows]).mean() for rows in drawn])
    assert frame["spread"].mean() == pytest.approx(within, rel=0.005)


def test_a_selection_shows_what_it_is_as_a_set(study: Study) -> None:
    pool = small_pool(60)
    positions = np.arange(20)
    shown = set_properties(pool, positions, set_level(study.scoring))
    chosen = pool.embeddings()[positions]
    assert shown["spread within the selection"] == pytest.approx(pdist(chosen).mean(), rel=1e-5)
    knn = nearest_neighbour(chosen, 2).mean()
    assert shown["knn_2 within the selection"] == pytest.approx(knn)
    assert isinstance(shown["spread within a random set"], float)
    assert isinstance(shown["knn_2 within a random set"], float)
    few = set_properties(pool, positions[:2], set_level(study.scoring))
    assert "more than 2 examples, got 2" in str(few["knn_2 within the selection"])


def test_set_aware_ranks_by_what_belongs_to_an_example() -> None:
    rule = linear_rule(reward=-0.2, knn_6=-0.9, spread=-5.0)
    columns = ("reward", "knn_6", "spread")
    pool = small_pool(60, rule=rule, columns=columns, set_level=frozenset({"knn_6", "spread"}))
    without = small_pool(60, rule=linear_rule(reward=-0.2), columns=columns)
    settings = StrategySettings(strategy="set_aware")
    chosen, expected = (choose(settings, p, 10, seed=0) for p in (pool, without))
    assert chosen.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"'odd' \(odd\) is not finite for a set of 20"),
        (np.ones(3), r"'odd' \(odd\) returned shape \(3,\) for a set of 20"),
    ],
)
def test_a_backend_that_returns_nonsense_is_named(value: object, message: str) -> None:
    indicator("odd", version=1, scope="set")(lambda embeddings: np.asarray(value))
    [odd] = set_level(ScoringSettings.model_validate({"indicators": {"odd": "odd"}}))
    with pytest.raises(IndicatorError, match=message):
        set_properties(small_pool(60), np.arange(20), [odd])


def test_there_are_two_scopes() -> None:
    with pytest.raises(IndicatorError, match="scope is 'example' or 'set', not 'mixture'"):
        indicator("odd", version=1, scope="mixture")  # type: ignore[arg-type]
