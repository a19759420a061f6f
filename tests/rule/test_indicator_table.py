"""indicator_table: one row a point, against the same computation in pandas, and what stops it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.experiments.evaluation import evaluation_fingerprint, evaluation_rows
from im_assets.experiments.finetuning import training_settings_id
from im_assets.experiments.lineage import LineageError, set_id_of
from im_assets.experiments.points import PARENTS, Parts, points_of
from im_assets.mixtures.experiment import mixture_experiment
from im_assets.rule.assets import definitions
from im_assets.scoring.batch import Models
from im_assets.scoring.indicators.nearest_neighbour import nearest_neighbour
from im_assets.scoring.registry import chosen
from im_resources.gpu import GpuResource
from im_resources.study import ModelSource, ScoringSettings, Study, fingerprint, load_study
from im_resources.warehouse import Warehouse
from im_resources.warehouse_io_manager import WarehouseIOManager

PLAIN: dict[str, Any] = {"len_out": "response_length", "mtld": "mtld"}
KNN: dict[str, Any] = {"knn_2": {"backend": "nearest_neighbour", "options": {"neighbour": 2}}}
LOSSES = ["token_loss", "instruction_loss", "loss", "log_loss"]
GPU = GpuResource(device="cpu")
Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is never loaded: its vectors are in the cache, and its hash is a base's."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def make_study(
    folder: Path, indicators: dict[str, Any], weighting: str = "token", mixtures: int = 5
) -> Study:
    study, source = load_study("demo"), ModelSource(path=str(folder))
    changes = {
        "models": study.models.model_copy(
            update={"base": source, "embedding": source, "precision": "fp32"}
        ),
        "evaluation": study.evaluation.model_copy(update={"weighting": weighting}),
        "scoring": ScoringSettings(indicators=indicators),
        "mixtures": study.mixtures.model_copy(update={"seeds": mixtures}),
    }
    return study.model_copy(update=changes)


def random_tables(study: Study, seed: int, size: int = 7, pool: int = 20) -> Tables:
    """What the stages before leave in the warehouse: random members, scores and losses."""
    rng, models = np.random.default_rng(seed), Models.of(study, GPU)
    ids = [f"x{i}" for i in range(pool)]
    keys = mixture_experiment(study).keys
    sets = {key: list(rng.choice(ids, size, replace=False)) for key in keys}
    evaluation = pd.DataFrame(
        [(f"e{e}", output, f"Ask {e}.", "", "Answer") for e in range(3) for output in range(e + 1)],
        columns=["eval_id", "output_index", "instruction", "input", "output"],
    )
    evaluation_id = evaluation_fingerprint(evaluation_rows(evaluation, study.evaluation), study)
    losses = pd.DataFrame(
        [
            (key, row.eval_id, row.output_index, rng.uniform(1, 60), rng.integers(1, 30))
            for key in keys
            for row in evaluation.itertuples()
        ],
        columns=["seed", "eval_id", "output_index", "nll", "tokens"],
    )
    per_example = [i for i in chosen(study.scoring) if i.backend.scope == "example"]
    drawn = mixture_experiment(study).drawing_id(study)
    return {
        "candidate_datasets": pd.DataFrame(
            {"example_id": ids, "source": rng.choice([*"abc"], pool)}
        ),
        "eval_set": evaluation,
        "mixture_seeds": pd.DataFrame(
            {"seed": keys, "version": 1, "refit": False, "retired": False}
        ),
        "mixed_samples": pd.DataFrame(
            [
                (key, place, example, set_id_of(members), drawn)
                for key, members in sets.items()
                for place, example in enumerate(members)
            ],
            columns=["seed", "position", "example_id", "set_id", "drawing_id"],
        ),
        "example_scores": pd.DataFrame(
            [
                (example, i.name, i.fingerprint(models), rng.normal(scale=10))
                for example in ids
                for i in per_example
            ],
            columns=["example_id", "indicator", "fingerprint", "value"],
        ).astype({"value": float}),
        "finetuned_adapters": pd.DataFrame(
            [
                (key, f"trial-{key}", set_id_of(sets[key]), training_settings_id(study),
                 GPU.base_fingerprint(study), study.models.precision)
                for key in keys
            ],
            columns=["seed", "trial_id", "set_id", "settings_id", "base_id", "precision"],
        ),
        "eval_losses": losses.assign(
            loss=losses["nll"] / losses["tokens"],
            trial_id="trial-" + losses["seed"],
            set_id=[set_id_of(sets[key]) for key in losses["seed"]],
            evaluation_id=evaluation_id,
        ),
    }  # fmt: skip


def signed_log(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value)


def by_pandas(tables: Tables, indicators: list[str], weighting: str) -> pd.DataFrame:
    """The table as its definition reads, one mixture at a time."""
    rows = []
    sources = tables["candidate_datasets"].set_index("example_id")["source"]
    for seed, members in tables["mixed_samples"].groupby("seed"):
        scores, losses = tables["example_scores"], tables["eval_losses"]
        losses = losses[losses["seed"] == seed]
        counts = sources[members["example_id"]].value_counts()
        row: dict[str, Any] = {
            "experiment": "mixtures",
            "partition": seed,
            "n_examples": len(members),
            "largest_source": min(counts.index[counts == counts.max()]),
        }
        for name in indicators:
            values = scores[scores["indicator"] == name].set_index("example_id")["value"]
            # The scale of rule.transform, written out.
            row[name] = np.mean([signed_log(v) for v in values[members["example_id"]]])
        row["transform"] = "log"
        row["token_loss"] = losses["nll"].sum() / losses["tokens"].sum()
        row["instruction_loss"] = losses.groupby("eval_id")["loss"].mean().mean()
        row["loss"] = row[f"{weighting}_loss"]
        row["log_loss"] = np.log(row["loss"])
        row |= {"part": "all", "instructions": losses["eval_id"].nunique()}
        adapter = tables["finetuned_adapters"].set_index("seed").loc[str(seed)]
        row |= {name: adapter[name] for name in PARENTS if name != "evaluation_id"}
        rows.append(row | {"evaluation_id": losses["evaluation_id"].iloc[0]})
    return pd.DataFrame(rows)


def points(folder: Path, tables: Tables, study: Study) -> pd.DataFrame:
    """The points of the tables, in a warehouse of their own."""
    warehouse = Warehouse(folder / "warehouse.duckdb")
    for name, frame in tables.items():
        warehouse.replace_table(name, frame)
    parts = Parts.of(mixture_experiment(study), tables)
    return points_of(parts, chosen(study.scoring), study, Models.of(study, GPU), warehouse)


def assert_same(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    table, expected = (f.drop(columns="values_id", errors="ignore") for f in (table, expected))
    pd.testing.assert_frame_equal(
        table, expected, check_dtype=False, check_names=False, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("weighting", ["token", "instruction"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), mixtures=st.integers(1, 8), size=st.integers(1, 20))
def test_the_table_is_its_definition(
    tmp_path_factory: pytest.TempPathFactory,
    models_folder: Path,
    weighting: str,
    seed: int,
    mixtures: int,
    size: int,
) -> None:
    study = make_study(models_folder, PLAIN, weighting, mixtures)
    tables = random_tables(study, seed, size)
    found = points(tmp_path_factory.mktemp("tables"), tables, study)
    assert_same(found, by_pandas(tables, [*PLAIN], weighting))


def test_scores_and_losses_of_others_do_not_matter(tmp_path: Path, models_folder: Path) -> None:
    study = make_study(models_folder, PLAIN)
    tables = random_tables(study, 1)
    expected = points(tmp_path, tables, study)
    scores = tables["example_scores"]
    mtld = scores[scores["indicator"] == "mtld"]
    others = [
        mtld.assign(example_id="stranger" + mtld["example_id"], value=1e9),
        mtld.assign(indicator="ppl", value=5.0),
        mtld.assign(fingerprint="an earlier version", value=1e9),
    ]
    tables["example_scores"] = pd.concat([scores, *others])
    tables = {name: frame.sample(frac=1, random_state=0) for name, frame in tables.items()}
    assert_same(points(tmp_path, tables, study), expected)


def test_the_same_set_under_two_seeds_counts_once(tmp_path: Path, models_folder: Path) -> None:
    study = make_study(models_folder, PLAIN)
    tables = random_tables(study, 2)
    samples = tables["mixed_samples"]
    first = samples[samples["seed"] == "seed-000"]
    others = samples[samples["seed"] != "seed-001"]
    tables["mixed_samples"] = pd.concat([others, first.assign(seed="seed-001")])
    assert_same(points(tmp_path, tables, study), by_pandas(tables, [*PLAIN], "token"))


Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[~((s["example_id"] == "x0") & (s["indicator"] == "mtld"))],
        lambda s: s[s["indicator"] != "mtld"],
        lambda s: s.assign(fingerprint=s["fingerprint"].where(s["indicator"] != "mtld", "old")),
    ],
    ids=["of a member", "of all", "of this version"],
)
def test_a_score_that_is_missing_is_told(
    tmp_path: Path, models_folder: Path, change: Change
) -> None:
    study = make_study(models_folder, PLAIN)
    tables = random_tables(study, 3)
    samples = tables["mixed_samples"]
    hit = samples.loc[samples["example_id"] == "x0", "seed"].tolist()
    assert 0 < len(hit) < 5
    tables["example_scores"] = change(tables["example_scores"])
    with pytest.raises(LineageError, match=r"mtld is not scored.*materialize example_scores") as e:
        points(tmp_path, tables, study)
    named = hit if len(tables["example_scores"]) == 39 else list(mixture_experiment(study).keys)
    assert f"{len(named)} mixtures ({', '.join(named)})" in str(e.value)


def embed(warehouse: Warehouse, ids: list[str], models: Models) -> np.ndarray:
    """Random unit vectors in the embedding cache, where the scorer would leave real ones."""
    vectors = np.random.default_rng(0).normal(size=(len(ids), 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    key = models.fingerprint("embedding")
    frame = pd.DataFrame({"example_id": ids, "fingerprint": key, "embedding": list(vectors)})
    warehouse.append("embedding_cache", frame, key=["example_id", "fingerprint"])
    return vectors


def test_the_set_level_indicator_is_the_mean_over_the_mixtures_own_neighbours(
    tmp_path: Path, models_folder: Path
) -> None:
    study = make_study(models_folder, KNN)
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    ids = [f"x{i}" for i in range(20)]
    models = Models.of(study, GPU)
    vectors = dict(zip(ids, embed(warehouse, ids, models), strict=True))
    tables = random_tables(study, 4)
    found = points(tmp_path, tables, study)
    members = tables["mixed_samples"]
    assert list(found["partition"]) == sorted(members["seed"].unique())
    for seed, value in zip(found["partition"], found["knn_2"], strict=True):
        own = members.loc[members["seed"] == seed, "example_id"]
        expected = nearest_neighbour(np.stack([vectors[i] for i in own]), 2).mean()
        assert value == pytest.approx(signed_log(expected), abs=1e-6)  # of the set's own value


def event_schema(result: dg.ExecuteInProcessResult) -> list[dg.TableColumn]:
    """The columns that the table says it has."""
    [event] = result.asset_materializations_for_node("indicator_table")
    schema = event.metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    return list(schema.columns)


@pytest.mark.parametrize("weighting", ["token", "instruction"])
@pytest.mark.parametrize("with_example_scores", [True, False])
def test_the_asset(
    tmp_path: Path, models_folder: Path, weighting: str, with_example_scores: bool
) -> None:
    """Also for a profile with nothing but a set-level indicator, whose example_scores are empty."""
    plain = PLAIN if with_example_scores else {}
    study = make_study(models_folder, {**plain, **KNN}, weighting)
    tables = random_tables(study, 5)
    warehouse = Warehouse(tmp_path / "w.duckdb")
    embed(warehouse, [f"x{i}" for i in range(20)], Models.of(study, GPU))
    result = materialize(study, tables, warehouse)
    table = warehouse.read_table("indicator_table")
    indicators = [*plain, "knn_2"]
    keys = ["experiment", "partition", "n_examples", "largest_source"]
    assert list(table.columns) == [
        *keys, *indicators, "transform", *LOSSES, "part", "instructions", "values_id", *PARENTS
    ]  # fmt: skip
    described = {c.name: c.description for c in event_schema(result) if c.name in indicators}
    assert all("ln(1 + |v|)" in str(text) for text in described.values())
    expected = by_pandas(tables, [*plain], weighting)
    shared = [*keys, *plain, *LOSSES, *PARENTS]
    assert_same(table[shared], expected[shared])
    [event] = result.asset_materializations_for_node("indicator_table")
    assert [column.name for column in event_schema(result)] == list(table.columns)
    assert event.metadata["points"].value == 5
    assert event.metadata["by experiment"].value == {"mixtures": 5}
    assert event.metadata["lowest loss"].value == pytest.approx(expected["loss"].min())
    [check] = [
        c for c in result.get_asset_check_evaluations() if c.check_name == "mixtures_parts_agree"
    ]
    assert (check.passed, check.description) == (True, "all 5 mixtures")


def test_the_asset_keeps_what_belongs_together_and_its_check_tells_of_the_others(
    tmp_path: Path, models_folder: Path
) -> None:
    study = make_study(models_folder, PLAIN)
    tables = random_tables(study, 6)
    whole = by_pandas(tables, [*PLAIN], "token")
    adapters, losses = tables["finetuned_adapters"], tables["eval_losses"]
    tables["finetuned_adapters"] = adapters.assign(
        settings_id=adapters["settings_id"].where(adapters["seed"] != "seed-001", "others")
    )
    tables["eval_losses"] = losses[losses["seed"] != "seed-003"]
    warehouse = Warehouse(tmp_path / "w.duckdb")
    result = materialize(study, tables, warehouse)
    table = warehouse.read_table("indicator_table")
    assert_same(table, whole.drop([1, 3]).reset_index(drop=True))
    [check] = [
        c for c in result.get_asset_check_evaluations() if c.check_name == "mixtures_parts_agree"
    ]
    assert not check.passed
    assert check.blocking
    assert check.metadata["faults"].value == {
        "seed-001": "other settings",
        "seed-003": "not evaluated",
    }


def materialize(study: Study, tables: Tables, warehouse: Warehouse) -> dg.ExecuteInProcessResult:
    """indicator_table of these tables, with the check that its parts belong together."""

    def made(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def table() -> pd.DataFrame:
            return tables[name]

        return table

    room = definitions(study)
    table = [
        asset
        for asset in room.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.key == dg.AssetKey("indicator_table")
    ]
    agree = [
        check
        for check in room.asset_checks or ()
        if next(iter(check.check_specs)).name == "mixtures_parts_agree"
    ]
    return dg.materialize(
        [*map(made, tables), *table, *agree],
        resources={
            "study": study,
            "gpu": GPU,
            "warehouse": warehouse,
            "io_manager": WarehouseIOManager(database=str(warehouse.path)),
        },
        raise_on_error=False,
    )


def test_means_are_added_up_in_the_sets_order(tmp_path: Path) -> None:
    """In another order the sum of these is 1: the order of rows or threads must not decide."""
    warehouse = Warehouse(tmp_path / "w.duckdb")
    values = {"a": 1e16, "b": 1.0, "c": -1e16}
    members = [{"set_id": "s", "position": k, "example_id": e} for k, e in enumerate(values)]
    scores = [{"example_id": e, "indicator": "i", "fingerprint": "f", "value": values[e]}
              for e in "acb"]  # fmt: skip
    warehouse.replace_table("samples", pd.DataFrame(members[::-1]))
    warehouse.replace_table("scores", pd.DataFrame(scores))
    names = {"samples": "samples", "scores": "scores", "transform": "none"}
    assert warehouse.query("set_indicators.sql", names)["value"].tolist() == [0.0]


def test_the_scale_is_that_of_every_member_and_in_the_values_id(
    tmp_path: Path, models_folder: Path
) -> None:
    """A mean of logs, not the log of a mean; as they are, values have the id they had before."""
    logs = make_study(models_folder, PLAIN)
    plain = logs.model_copy(update={"rule": logs.rule.model_copy(update={"transform": "none"})})
    tables = random_tables(logs, seed=3)
    on_logs, as_they_are = (
        points(tmp_path / str(i), tables, s) for i, s in enumerate([logs, plain])
    )
    members = tables["mixed_samples"].query("seed == 'seed-000'")["example_id"]
    scores = tables["example_scores"].query("indicator == 'mtld'").set_index("example_id")["value"]
    values = scores[members].tolist()
    assert as_they_are["mtld"][0] == pytest.approx(np.mean(values))
    assert on_logs["mtld"][0] == pytest.approx(np.mean([signed_log(v) for v in values]))
    assert abs(on_logs["mtld"][0] - signed_log(float(np.mean(values)))) > 0.01
    models, found = Models.of(logs, GPU), chosen(logs.scoring)
    versions = sorted((i.name, i.fingerprint(models)) for i in found)
    measures = [("loss", 1)]
    assert as_they_are["values_id"][0] == fingerprint("values", versions, "token", measures)
    assert on_logs["values_id"][0] != as_they_are["values_id"][0]
