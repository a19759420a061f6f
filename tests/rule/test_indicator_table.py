"""indicator_table: the SQL against the same computation in pandas, and what stops it."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.rule.assets import indicator_table
from im_assets.rule.indicator_table import mixture_scores, one_row_a_mixture
from im_assets.scoring.batch import Models
from im_assets.scoring.indicators.nearest_neighbour import nearest_neighbour
from im_assets.scoring.registry import chosen
from im_resources.gpu import GpuResource
from im_resources.study import ScoringSettings, Study, load_study
from im_resources.warehouse import Warehouse, WarehouseIOManager

NAMES = ["len_out", "mtld"]
Tables = dict[str, pd.DataFrame]


def random_tables(seed: int, mixtures: int = 5, size: int = 7, pool: int = 20) -> Tables:
    """What the stages before leave in the warehouse: random members, scores and losses."""
    rng = np.random.default_rng(seed)
    ids = [f"x{i}" for i in range(pool)]
    seeds = [f"seed-{i:03d}" for i in range(mixtures)]
    members = pd.DataFrame(
        [(s, k, i) for s in seeds for k, i in enumerate(rng.choice(ids, size, replace=False))],
        columns=["seed", "position", "example_id"],
    )
    scores = pd.DataFrame(
        [(i, name, rng.normal(scale=10)) for i in ids for name in NAMES],
        columns=["example_id", "indicator", "value"],
    )
    losses = pd.DataFrame(
        [
            (s, f"e{e}", output, rng.uniform(1, 60), rng.integers(1, 30))
            for s in seeds
            for e in range(3)
            for output in range(e + 1)
        ],
        columns=["seed", "eval_id", "output_index", "nll", "tokens"],
    )
    sets = pd.DataFrame(
        [(s, "knn_6", rng.uniform()) for s in seeds], columns=["seed", "indicator", "value"]
    )
    return {
        "mixed_samples": members,
        "example_scores": scores,
        "eval_losses": losses.assign(loss=losses["nll"] / losses["tokens"]),
        "mixture_scores": sets,
    }


def by_pandas(tables: Tables, weighting: str) -> pd.DataFrame:
    """The table as its definition reads, one mixture at a time."""
    rows = []
    for seed, members in tables["mixed_samples"].groupby("seed"):
        scores, losses = tables["example_scores"], tables["eval_losses"]
        losses = losses[losses["seed"] == seed]
        row: dict[str, Any] = {"seed": seed, "n_examples": len(members)}
        for name in NAMES:
            values = scores[scores["indicator"] == name].set_index("example_id")["value"]
            row[name] = values[members["example_id"]].mean()
        of_set = tables["mixture_scores"].set_index(["seed", "indicator"])["value"]
        row["knn_6"] = of_set[seed, "knn_6"]
        row["token_loss"] = losses["nll"].sum() / losses["tokens"].sum()
        row["instruction_loss"] = losses.groupby("eval_id")["loss"].mean().mean()
        row["loss"] = row[f"{weighting}_loss"]
        rows.append(row | {"log_loss": np.log(row["loss"])})
    return pd.DataFrame(rows)


def by_sql(folder: Path, tables: Tables, weighting: str) -> pd.DataFrame:
    warehouse = Warehouse(folder / "warehouse.duckdb")
    for name, frame in tables.items():
        warehouse.replace_table(name, frame)
    long = warehouse.query("indicator_table.sql", {"weighting": weighting})
    return one_row_a_mixture(long, [*NAMES, "knn_6"])


def assert_same(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        table, expected, check_dtype=False, check_names=False, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("weighting", ["token", "instruction"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), mixtures=st.integers(1, 8), size=st.integers(1, 20))
def test_the_sql_is_the_definition(
    tmp_path_factory: pytest.TempPathFactory, weighting: str, seed: int, mixtures: int, size: int
) -> None:
    tables = random_tables(seed, mixtures, size)
    table = by_sql(tmp_path_factory.mktemp("tables"), tables, weighting)
    assert_same(table, by_pandas(tables, weighting))


def test_scores_and_losses_of_others_do_not_matter(tmp_path: Path) -> None:
    tables = random_tables(1)
    expected = by_sql(tmp_path, tables, "token")
    stranger = pd.DataFrame({"example_id": ["other"], "indicator": ["mtld"], "value": [1e9]})
    tables["example_scores"] = pd.concat([tables["example_scores"], stranger])
    unused = pd.DataFrame(
        {"example_id": [f"x{i}" for i in range(20)], "indicator": "ppl", "value": 5.0}
    )
    tables["example_scores"] = pd.concat([tables["example_scores"], unused])
    tables = {name: frame.sample(frac=1, random_state=0) for name, frame in tables.items()}
    assert_same(by_sql(tmp_path, tables, "token"), expected)


def test_a_member_without_a_score_is_named(tmp_path: Path) -> None:
    tables = random_tables(2)
    first = tables["mixed_samples"].iloc[0]
    scores = tables["example_scores"]
    gone = (scores["example_id"] == first["example_id"]) & (scores["indicator"] == "mtld")
    message = "mtld is scored for 6 of the 7 examples of seed-000; materialize example_scores"
    with pytest.raises(ValueError, match=re.escape(message)):
        by_sql(tmp_path, tables | {"example_scores": scores[~gone]}, "token")


def test_an_indicator_without_any_score_is_named(tmp_path: Path) -> None:
    tables = random_tables(3)
    scores = tables["example_scores"]
    without = tables | {"example_scores": scores[scores["indicator"] != "mtld"]}
    with pytest.raises(ValueError, match="no scores of mtld"):
        by_sql(tmp_path, without, "token")
    fewer = tables | {"mixture_scores": tables["mixture_scores"][1:]}
    with pytest.raises(ValueError, match="no scores of knn_6"):
        by_sql(tmp_path, fewer, "token")


def study_with(weighting: str, indicators: dict[str, Any]) -> Study:
    study = load_study("demo")
    evaluation = study.evaluation.model_copy(update={"weighting": weighting})
    scoring = ScoringSettings(indicators=indicators)
    return study.model_copy(update={"evaluation": evaluation, "scoring": scoring})


def embed(warehouse: Warehouse, ids: list[str], models: Models) -> np.ndarray:
    """Random unit vectors in the embedding cache, where the scorer would leave real ones."""
    vectors = np.random.default_rng(0).normal(size=(len(ids), 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    key = models.fingerprint("embedding")
    frame = pd.DataFrame({"example_id": ids, "fingerprint": key, "embedding": list(vectors)})
    warehouse.append("embedding_cache", frame, key=["example_id", "fingerprint"])
    return vectors


KNN = {"knn_2": {"backend": "nearest_neighbour", "options": {"neighbour": 2}}}


def test_the_set_level_indicator_is_the_mean_over_the_mixtures_own_neighbours(
    tmp_path: Path,
) -> None:
    study, warehouse = study_with("token", KNN), Warehouse(tmp_path / "w.duckdb")
    models = Models.of(study, GpuResource(device="cpu"))
    members = random_tables(4)["mixed_samples"]
    ids = sorted(members["example_id"].unique())
    vectors = dict(zip(ids, embed(warehouse, ids, models), strict=True))
    frame = mixture_scores(members, chosen(study.scoring), models, warehouse)
    assert list(frame["seed"]) == sorted(members["seed"].unique())
    for seed, value in zip(frame["seed"], frame["value"], strict=True):
        own = members.loc[members["seed"] == seed, "example_id"]
        expected = nearest_neighbour(np.stack([vectors[i] for i in own]), 2).mean()
        assert value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weighting", ["token", "instruction"])
@pytest.mark.parametrize("with_example_scores", [True, False])
def test_the_asset(tmp_path: Path, weighting: str, with_example_scores: bool) -> None:
    """Also for a profile with nothing but a set-level indicator, whose example_scores are empty."""
    tables = random_tables(5)
    plain = {"len_out": "response_length", "mtld": "mtld"} if with_example_scores else {}
    study = study_with(weighting, {**plain, **KNN})
    warehouse, gpu = Warehouse(tmp_path / "w.duckdb"), GpuResource(device="cpu")
    embed(warehouse, [f"x{i}" for i in range(20)], Models.of(study, gpu))
    if not with_example_scores:
        tables["example_scores"] = tables["example_scores"][:0]

    def made(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def table() -> pd.DataFrame:
            return tables[name]

        return table

    result = dg.materialize(
        [*map(made, ["mixed_samples", "example_scores", "eval_losses"]), indicator_table],
        resources={
            "study": study,
            "gpu": gpu,
            "warehouse": warehouse,
            "io_manager": WarehouseIOManager(database=str(warehouse.path)),
        },
    )
    table = warehouse.read_table("indicator_table")
    indicators = [*plain, "knn_2"]
    losses = ["token_loss", "instruction_loss", "loss", "log_loss"]
    assert list(table.columns) == ["seed", "n_examples", *indicators, *losses]
    expected = by_pandas(random_tables(5), weighting)
    shared = ["seed", "n_examples", *plain, *losses]
    assert_same(table[shared], expected[shared])
    [event] = result.asset_materializations_for_node("indicator_table")
    schema = event.metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns] == list(table.columns)
    assert event.metadata["mixtures"].value == 5
    assert event.metadata["lowest loss"].value == pytest.approx(expected["loss"].min())
