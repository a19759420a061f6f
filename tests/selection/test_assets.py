"""dolly_selection as an asset: from scores and a rule to a table, a file and what is shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from im_assets.common.presentation import markdown
from im_assets.rule.document import coefficient_table
from im_assets.rule.model import AgainstChance, Chance, Coefficient, Rule
from im_assets.scoring.batch import Models
from im_assets.scoring.indicators.nearest_neighbour import expected_distance
from im_assets.scoring.registry import BACKENDS, chosen
from im_assets.selection.assets import selection_asset
from im_assets.selection.checks import chance_check, reach_check
from im_assets.selection.pool import pool_indicators
from im_assets.selection.pool_indicators import pool_indicators_asset
from im_assets.selection.selecting import SelectionError
from im_resources.gpu import GpuResource
from im_resources.study import ModelSource, ScoringSettings, SelectionSettings, Study, load_study
from im_resources.warehouse import Warehouse
from tests.registries import isolate

SIZE, POOL = 5, 40
IDS = [f"id-{i:02d}" for i in range(POOL)]
KNN = {"backend": "nearest_neighbour", "options": {"neighbour": 2}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    isolate(BACKENDS, monkeypatch)


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    def made(**indicators: Any) -> Study:
        folder = tmp_path / "embedding"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"never loaded: its vectors are in the cache")
        study = load_study("demo")
        models = study.models.model_copy(update={"embedding": ModelSource(path=str(folder))})
        scoring = ScoringSettings(indicators=indicators)
        selection = SelectionSettings(size=SIZE, random_draws=50)
        changes = {"models": models, "scoring": scoring, "selection": selection}
        return study.model_copy(update=changes)

    return made


def models_of(study: Study) -> Models:
    return Models.of(study, GpuResource(device="cpu"))


def embed(study: Study) -> tuple[Warehouse, np.ndarray]:
    """A warehouse whose embedding cache holds random unit vectors for the pool."""
    vectors = np.random.default_rng(0).normal(size=(POOL, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    warehouse = Warehouse(study.warehouse)
    key = models_of(study).fingerprint("embedding")
    frame = pd.DataFrame({"example_id": IDS, "fingerprint": key, "embedding": list(vectors)})
    warehouse.append("embedding_cache", frame, key=["example_id", "fingerprint"])
    return warehouse, vectors


def scores(**columns: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(columns, index=pd.Index(IDS, name="example_id")).reset_index()
    return frame.melt("example_id", var_name="indicator", value_name="value")


LENGTHS = np.random.default_rng(1).permutation(POOL).astype(float)


def materialize(
    study: Study, warehouse: Warehouse, rule: Rule, indicators: pd.DataFrame | None = None
) -> dg.ExecuteInProcessResult:
    texts = {name: [f"{name} {i}" for i in IDS] for name in ("instruction", "output")}
    keys = {i.name: i.fingerprint(models_of(study)) for i in chosen(study.scoring)}
    scored = scores(len_out=LENGTHS)
    frames = {
        "dolly_dataset": pd.DataFrame({"example_id": IDS, **texts, "input": "", "category": "qa"}),
        "dolly_scores": scored.assign(fingerprint=scored["indicator"].map(keys)),
        "quality_rule": coefficient_table(rule),
    }
    warehouse.replace_table("dolly_scores", frames["dolly_scores"])
    if indicators is not None:
        frames["dolly_indicators"] = indicators
    computed = [] if "dolly_indicators" in frames else [pool_indicators_asset("dolly", study)]

    def made(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def table() -> pd.DataFrame:
            return frames[name]

        return table

    return dg.materialize(
        [
            *map(made, frames),
            *computed,
            selection_asset("dolly", study),
            chance_check("dolly"),
            reach_check("dolly"),
        ],
        resources={
            "study": study,
            "gpu": GpuResource(device="cpu"),
            "warehouse": warehouse,
            "io_manager": dg.mem_io_manager,
        },
        raise_on_error=True,
    )


def rule(**slopes: float) -> Rule:
    terms = tuple(Coefficient(name=n, estimate=b) for n, b in slopes.items())
    return Rule(
        source="fitted", constant=Coefficient(name="constant", estimate=1), coefficients=terms
    )


def of_chance(rule: Rule, p: float) -> Rule:
    """The rule, with a permutation test that came to this p."""
    fit = AgainstChance(value=0.3, low=0.0, high=0.4, p=p)
    return rule.model_copy(update={"n": 16, "chance": Chance(shuffles=99, r2=fit, loo_r2=fit)})


def test_the_asset_selects_exports_and_shows(make_study: Callable[..., Study]) -> None:
    study = make_study(len_out="response_length", knn_2=KNN)
    warehouse, vectors = embed(study)
    result = materialize(study, warehouse, rule(len_out=0.01, knn_2=-0.5))
    selection = result.output_for_node("dolly_selection")
    expected = 1 + 0.01 * LENGTHS - 0.5 * expected_distance(vectors, study.mixtures.size, 2)
    best = [IDS[i] for i in np.argsort(expected)[:SIZE]]
    assert list(selection["example_id"]) == best
    assert list(selection["predicted_log_loss"]) == pytest.approx(sorted(expected)[:SIZE])
    exported = (study.folder / "selection.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["example_id"] for line in exported] == best
    # This pool was made before its rows told where they came from.
    assert selection[["source", "file", "line", "own_id"]].isna().all(axis=None)
    first = json.loads(exported[0])
    assert (first["file"], first["line"], first["own_id"], first["category"]) == (
        None, None, None, "qa",
    )  # fmt: skip
    by = rule(len_out=0.01, knn_2=-0.5)
    assert set(selection["rule_id"]) == {by.id}
    [event] = result.asset_materializations_for_node("dolly_selection")
    assert event.metadata["rule_id"].value == by.id
    assert event.metadata["selected"].value == SIZE
    assert event.metadata["pool"].value == POOL
    table = str(event.metadata["against random subsets of the same size"].value)
    assert all(markdown(name) in table for name in ("predicted_log_loss", "len_out", "knn_2"))


def test_neighbours_are_looked_for_where_something_reads_them(
    make_study: Callable[..., Study],
) -> None:
    study = make_study(len_out="response_length", knn_2=KNN)
    warehouse, _ = embed(study)
    result = materialize(study, warehouse, rule(len_out=0.01))
    selection = result.output_for_node("dolly_selection")
    assert "knn_2" not in selection
    assert list(selection["example_id"]) == [IDS[i] for i in np.argsort(LENGTHS)[:SIZE]]
    [event] = result.asset_materializations_for_node("dolly_selection")
    assert "knn_2 within the selection" in event.metadata
    settings = {"strategy": "highest", "options": {"indicator": "knn_2"}, "size": SIZE}
    own = SelectionSettings.model_validate(settings | {"random_draws": 50})
    result = materialize(study.model_copy(update={"selection": own}), warehouse, rule(len_out=0.01))
    found = result.output_for_node("dolly_selection")["knn_2"]
    assert found.is_monotonic_decreasing


def test_indicators_of_something_else_are_not_ranked_by(make_study: Callable[..., Study]) -> None:
    study = make_study(len_out="response_length", knn_2=KNN)
    warehouse, _ = embed(study)
    by = rule(len_out=0.01)
    made = materialize(study, warehouse, by).output_for_node("dolly_indicators")
    assert list(made.columns) == ["example_id", "len_out", "made_by"]
    again = materialize(study, warehouse, by, made).output_for_node("dolly_selection")
    assert list(again["example_id"]) == [IDS[i] for i in np.argsort(LENGTHS)[:SIZE]]
    for other in (rule(len_out=0.02), rule(len_out=0.01, knn_2=-0.5)):
        with pytest.raises(SelectionError, match="dolly_indicators was made for another rule"):
            materialize(study, warehouse, other, made)
    with pytest.raises(SelectionError, match="lacks 2 of the pool's 40 examples"):
        materialize(study, warehouse, by, made.iloc[2:])


def test_a_rule_without_indicators_fails_and_exports_nothing(
    make_study: Callable[..., Study],
) -> None:
    study = make_study(len_out="response_length")
    with pytest.raises(SelectionError, match="no indicator"):
        materialize(study, Warehouse(study.warehouse), rule())
    assert not (study.folder / "selection.jsonl").exists()


def test_a_rule_of_chance_selects_nothing_but_on_demand(make_study: Callable[..., Study]) -> None:
    study = make_study(len_out="response_length")
    warehouse, _ = embed(study)
    by_chance = of_chance(rule(len_out=0.01), p=0.2)
    words = r"p = 0\.2 of 99 shuffles, 16 mixtures.*more mixtures.*when_chance: select"
    with pytest.raises(SelectionError, match=words):
        materialize(study, warehouse, by_chance)
    assert not (study.folder / "selection.jsonl").exists()
    # Another strategy does not rank by it, and a rule beyond chance, or untested, is no matter.
    length = {"strategy": "highest", "options": {"indicator": "len_out"}, "size": SIZE}
    for settings, by, expected in (
        ({"size": SIZE, "when_chance": "select"}, by_chance, [False]),
        (length, by_chance, []),
        ({"size": SIZE}, of_chance(rule(len_out=0.01), p=0.05), [True]),
        ({"size": SIZE}, rule(len_out=0.01), []),
    ):
        own = SelectionSettings.model_validate({"random_draws": 50, **settings})
        result = materialize(study.model_copy(update={"selection": own}), warehouse, by)
        selection = result.output_for_node("dolly_selection")
        assert len(selection) == SIZE
        assert list(selection["beyond_chance"].dropna().unique()) == expected
        [event] = result.asset_materializations_for_node("dolly_selection")
        assert ("by chance" in event.metadata) == (expected == [False])
        [check] = [c for c in result.get_asset_check_evaluations() if "chance" in c.check_name]
        assert check.passed == (expected != [False])
        assert check.severity == dg.AssetCheckSeverity.WARN


def test_a_selection_says_how_far_it_lies_outside_of_the_points(
    make_study: Callable[..., Study],
) -> None:
    study = make_study(len_out="response_length")
    warehouse, _ = embed(study)
    # LENGTHS are 0 to 39: the points cover 3 to 20 of them, and the five shortest are 0 to 4.
    for ends, share, passed in (((3.0, 20.0), "60% of the selection", False),
                                ((2.0, 20.0), "", True)):  # fmt: skip
        term = Coefficient(name="len_out", estimate=0.01, low=ends[0], high=ends[1])
        by = rule(len_out=0.01).model_copy(update={"coefficients": (term,)})
        result = materialize(study, warehouse, by)
        [check] = [c for c in result.get_asset_check_evaluations() if "reach" in c.check_name]
        assert check.passed == passed
        assert share in str(check.description)
        assert check.severity == dg.AssetCheckSeverity.WARN
        [event] = result.asset_materializations_for_node("dolly_selection")
        shown = str(event.metadata["outside what the rule was fitted on"].value)
        assert markdown(f"{(1 - passed) * 0.6 + passed * 0.4:.4g}") in shown
    cut = rule(len_out=0.01).model_copy(update={"coefficients": (term,), "winsorize": True})
    selection = materialize(study, warehouse, cut).output_for_node("dolly_selection")
    # Lengths 0 to 2 are all read as 2: these three come first, by their ids, and then 3 and 4.
    shortest = sorted(IDS[i] for i in np.argsort(LENGTHS)[:3])
    assert list(selection["example_id"]) == [*shortest, *(IDS[i] for i in np.argsort(LENGTHS)[3:5])]


def test_a_score_that_is_missing_is_named(make_study: Callable[..., Study]) -> None:
    study = make_study(len_out="response_length")

    def no_vectors() -> np.ndarray:
        raise AssertionError("nothing reads them")

    with pytest.raises(
        SelectionError, match=r"len_out is not scored.* for 1 of the pool's 41 examples"
    ):
        pool_indicators([*IDS, "new"], scores(len_out=LENGTHS), study, no_vectors)
    with pytest.raises(
        SelectionError, match=r"len_out is not scored.* for 40 of the pool's 40 examples"
    ):
        pool_indicators(IDS, scores(other=LENGTHS), study, no_vectors)


def test_a_pool_can_be_ranked_by_its_neighbours_alone(make_study: Callable[..., Study]) -> None:
    study = make_study(knn_2=KNN)
    _, vectors = embed(study)
    frame = pool_indicators(IDS, scores(), study, lambda: vectors)
    assert list(frame.index) == IDS
    expected = expected_distance(vectors, study.mixtures.size, 2)
    np.testing.assert_allclose(frame["knn_2"], expected, atol=1e-6)
