"""Assets through the warehouse in real Dagster runs: one key, a range in one run, a fan-in."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_resources.lake_address import LakeAddress
from im_resources.study import PROJECT_ROOT
from im_resources.warehouse import (
    Warehouse,
    WarehouseError,
    WarehouseResource,
)
from im_resources.warehouse_io_manager import WarehouseIOManager

KEYS = ["seed-0", "o'brien", 'ü "2"', "seed-3"]
SEEDS = dg.StaticPartitionsDefinition(KEYS)
BY_SEED: dict[str, Any] = {
    "partitions_def": SEEDS,
    "backfill_policy": dg.BackfillPolicy.single_run(),
    "metadata": {"partition_expr": "seed"},
}


class Scale(dg.Config):
    value: int = 1
    keep: list[str] = KEYS  # the keys that get rows


def rows_of(context: dg.AssetExecutionContext, config: Scale) -> pd.DataFrame:
    pairs = [
        (k, config.value + i) for k in context.partition_keys if k in config.keep for i in (0, 1)
    ]
    return pd.DataFrame(pairs, columns=["seed", "value"])


@dg.asset(**BY_SEED)
def samples(context: dg.AssetExecutionContext, config: Scale) -> pd.DataFrame:
    return rows_of(context, config)


@dg.asset(**BY_SEED)
def losses(samples: pd.DataFrame) -> pd.DataFrame:
    return samples.assign(loss=samples["value"] / 10)


@dg.asset(**BY_SEED, ins={"samples": dg.AssetIn(metadata={"allow_missing_partitions": True})})
def tolerant(samples: pd.DataFrame) -> pd.DataFrame:
    return samples


@dg.asset(
    backfill_policy=dg.BackfillPolicy.single_run(),
    ins={"losses": dg.AssetIn(metadata={"columns": ["loss", "value"]})},
)
def report(losses: pd.DataFrame) -> pd.DataFrame:
    return losses


@dg.asset(**BY_SEED)
def stray(context: dg.AssetExecutionContext) -> pd.DataFrame:
    return pd.DataFrame({"seed": [*context.partition_keys, "elsewhere"]})


@dg.asset(**BY_SEED)
def nameless() -> pd.DataFrame:
    return pd.DataFrame({"value": [1]})


@dg.asset
def rows_counted(warehouse: dg.ResourceParam[Warehouse]) -> pd.DataFrame:
    return warehouse.query("SELECT count(*) AS n FROM samples")


ASSETS = [samples, losses, tolerant, report, stray, nameless, rows_counted]


class Platform:
    """A warehouse and the runs that write to it."""

    def __init__(self, where: Path | LakeAddress) -> None:
        self.warehouse = Warehouse(where)
        self.resources: dict[str, Any] = {
            "io_manager": WarehouseIOManager(database=str(where)),
            "warehouse": WarehouseResource(path=str(where)),
        }

    def run(
        self, *assets: dg.AssetsDefinition, keys: tuple[str, str] | str | None = None, **config: Any
    ) -> dg.ExecuteInProcessResult:
        tags = {}
        if isinstance(keys, tuple):
            ends = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
            tags = dict(zip(ends, keys, strict=True))
        return dg.materialize(
            ASSETS,
            selection=list(assets),
            resources=self.resources,
            partition_key=keys if isinstance(keys, str) else None,
            tags=tags,
            run_config={"ops": {"samples": {"config": config}}} if config else None,
        )

    def values(self, table: str, column: str = "value") -> dict[str, list[Any]]:
        found = self.warehouse.read_table(table)
        return {str(k): sorted(v) for k, v in found.groupby("seed")[column]}


@pytest.fixture(params=["file", "lake"])
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Platform:
    if request.param == "lake":
        return Platform(request.getfixturevalue("lake_address"))
    return Platform(tmp_path / "warehouse.duckdb")


@contextmanager
def refused(message: str) -> Iterator[None]:
    """Dagster wraps what an IO manager raises; the cause is ours."""
    with pytest.raises((WarehouseError, dg.DagsterError)) as caught:
        yield
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, WarehouseError):
        cause = cause.__cause__
    assert cause is not None, caught.value
    assert message in str(cause)


def test_a_partition_is_rewritten_without_touching_the_others(platform: Platform) -> None:
    for key in KEYS[:2]:
        platform.run(samples, losses, keys=key)
    for _ in range(2):
        platform.run(samples, losses, keys=KEYS[1], value=7)
    assert platform.values("samples") == {KEYS[0]: [1, 2], KEYS[1]: [7, 8]}
    assert platform.values("losses", "loss")[KEYS[1]] == [0.7, 0.8]


def test_a_range_and_its_fan_in_are_one_run(platform: Platform) -> None:
    platform.run(samples, keys=KEYS[0], value=5)
    result = platform.run(samples, losses, report, keys=(KEYS[1], KEYS[3]))
    written = [m.partition for m in result.asset_materializations_for_node("losses")]
    assert set(written) == set(KEYS[1:])
    assert set(platform.values("losses")) == set(KEYS[1:])
    assert platform.values("samples")[KEYS[0]] == [5, 6]
    stored = platform.warehouse.read_table("report")
    assert list(stored) == ["loss", "value"]
    assert len(stored) == 6


def test_a_fan_in_reads_in_the_order_of_the_keys_whenever_they_were_written(
    platform: Platform,
) -> None:
    for key, value in zip(sorted(KEYS)[::-1], (30, 20, 10, 0), strict=True):
        platform.run(samples, keys=key, value=value)
    platform.run(losses, report, keys=(KEYS[0], KEYS[3]))
    stored = platform.warehouse.read_table("report")["value"].tolist()
    assert stored == [0, 1, 10, 11, 20, 21, 30, 31]


def test_missing_partitions_are_named_unless_the_input_allows_them(platform: Platform) -> None:
    with refused("asset 'samples' is not in the warehouse"):
        platform.run(losses, keys=KEYS[0])
    platform.run(samples, keys=(KEYS[0], KEYS[3]), keep=[KEYS[0], KEYS[2]])
    with refused(f"no rows for the partitions {[KEYS[1], KEYS[3]]}"):
        platform.run(losses, keys=(KEYS[0], KEYS[3]))
    platform.run(tolerant, keys=(KEYS[0], KEYS[3]))
    assert set(platform.values("tolerant")) == {KEYS[0], KEYS[2]}


def test_an_empty_first_partition_makes_a_table(platform: Platform) -> None:
    platform.run(samples, keys=KEYS[0], keep=[])
    assert list(platform.warehouse.read_table("samples")) == ["seed", "value"]
    platform.run(samples, keys=KEYS[1])
    assert platform.values("samples") == {KEYS[1]: [1, 2]}


def test_rows_outside_the_keys_being_written_are_refused(platform: Platform) -> None:
    with refused("'elsewhere'"):
        platform.run(stray, keys=KEYS[1])
    with refused("asset 'nameless': its rows have no partition column 'seed'"):
        platform.run(nameless, keys=KEYS[1])
    assert not platform.warehouse.has_table("stray")


def test_an_unpartitioned_asset_replaces_its_table(platform: Platform) -> None:
    def materialize(frame: pd.DataFrame) -> dict[str, Any]:
        @dg.asset
        def rule() -> dg.Output[pd.DataFrame]:
            return dg.Output(frame, metadata={"mine": 1})

        result = dg.materialize([rule], resources=platform.resources)
        (event,) = result.asset_materializations_for_node("rule")
        return {name: value.value for name, value in event.metadata.items()}

    materialize(pd.DataFrame({"term": ["a"], "beta": [1]}))
    metadata = materialize(pd.DataFrame({"beta": ["x", "y"]}))
    assert platform.warehouse.read_table("rule").to_dict("list") == {"beta": ["x", "y"]}
    assert metadata["dagster/row_count"] == 2
    assert metadata["dagster/table_name"] == "warehouse.main.rule"
    assert metadata["mine"] == 1


def test_row_counts_of_partitions_are_in_the_metadata(platform: Platform) -> None:
    platform.run(samples, keys=(KEYS[0], KEYS[1]))
    result = platform.run(samples, keys=KEYS[2])
    (event,) = result.asset_materializations_for_node("samples")
    assert event.metadata["dagster/partition_row_count"].value == 2
    assert event.metadata["dagster/row_count"].value == 6


def test_a_lakes_materialization_names_the_snapshot_that_it_made(platform: Platform) -> None:
    platform.run(samples, keys=KEYS[0])
    result = platform.run(samples, keys=KEYS[0], value=7)
    (event,) = result.asset_materializations_for_node("samples")
    platform.run(samples, keys=KEYS[0], value=9)
    if not platform.warehouse.is_lake:
        assert "lake snapshot" not in event.metadata
        return
    made: Any = event.metadata["lake snapshot"].value
    past = platform.warehouse.as_of(made).read_table("samples")
    assert past["value"].tolist() == [7, 8]
    before = platform.warehouse.as_of(made - 1).read_table("samples")
    assert before["value"].tolist() == [1, 2]


def test_assets_query_through_the_resource_and_values_load_outside_a_run(
    platform: Platform,
) -> None:
    platform.run(samples, keys=(KEYS[0], KEYS[3]))
    platform.run(rows_counted)
    definitions = dg.Definitions(assets=ASSETS, resources=platform.resources)
    counted: Any = definitions.load_asset_value("rows_counted")
    one: Any = definitions.load_asset_value("samples", partition_key=KEYS[1])
    assert counted["n"].tolist() == [8]
    assert one["seed"].tolist() == [KEYS[1]] * 2


def test_what_is_private_in_dagster_is_what_dagster_duckdb_is_made_of() -> None:
    """And it is named in one file: when these move, that is the one to look at."""
    from dagster_duckdb import io_manager as ground

    from im_resources import warehouse_io_manager as ours

    for name in ("DbClient", "DbIOManager", "DbTypeHandler", "TableSlice"):
        assert getattr(ours, name) is getattr(ground, name)
    private = re.compile(r"\bdagster\._|\b(context|instance)\._[a-z]")
    files = [*(PROJECT_ROOT / "im_resources").rglob("*.py")]
    found = [file.name for file in files if private.search(file.read_text(encoding="utf-8"))]
    # The others have their own tests of what moves.
    assert sorted(found) == ["compute_logs.py", "waiting.py", "warehouse_io_manager.py"]
