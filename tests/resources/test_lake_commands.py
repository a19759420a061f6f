"""A study whose deployment names a lake: what the commands read, and what they say of it."""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml

from im_assets import query
from im_resources import backup, lake_upkeep, snapshot
from im_resources.deployment.making import warehouse_address, warehouse_of
from im_resources.lake_address import LakeAddress
from im_resources.study import Study, load_study
from im_resources.study.environment import environment
from im_resources.warehouse import Warehouse, WarehouseError
from im_resources.warehouse_io_manager import WarehouseIOManager
from tests import servers


@pytest.fixture
def study(tmp_path: Path, lake_address: LakeAddress, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of its own name, whose tables are in a lake."""
    profile = tmp_path / "mine.yaml"
    profile.write_text(yaml.safe_dump({"extends": "demo", "name": lake_address.schema}))
    place = {"kind": "ducklake", "catalog": lake_address.catalog, "data": lake_address.data}
    deployment = tmp_path / "lake.yaml"
    deployment.write_text(yaml.safe_dump({"name": "lake", "warehouse": place}))
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IM_PROFILE", str(profile))
    monkeypatch.setenv("IM_DEPLOYMENT", str(deployment))
    monkeypatch.delenv("DAGSTER_STATE")  # that of the tests
    for name, value in environment()[1].items():
        monkeypatch.setenv(name, value)
    return load_study(str(profile))


def test_the_deployment_says_where_the_tables_are(study: Study, lake_address: LakeAddress) -> None:
    assert warehouse_address(study) == str(lake_address)
    warehouse = warehouse_of(study)
    assert warehouse.is_lake
    assert not warehouse.exists()
    with pytest.raises(WarehouseError, match="is a lake, not a file"):
        _ = warehouse.path
    os.environ["IM_DEPLOYMENT"] = "this_machine"  # put back by the fixture
    assert warehouse_of(study).path == study.warehouse


def test_a_query_reads_what_a_run_has_left(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert query.main(["SELECT 1"]) == 1
    assert "has not run: there is no ducklake:" in capsys.readouterr().err
    assert query.main(["SELECT 1", "--as-of-run", "abc"]) == 1
    capsys.readouterr()

    @dg.asset
    def rule(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"run": [context.run.run_id]})

    study.history.mkdir(parents=True)
    resources: dict[str, Any] = {
        "io_manager": WarehouseIOManager(database=warehouse_address(study))
    }
    with dg.DagsterInstance.get() as instance:
        runs = [dg.materialize([rule], resources=resources, instance=instance) for _ in range(2)]
    first, second = (run.run_id for run in runs)
    assert query.main(["FROM rule", "--csv"]) == 0
    assert second in capsys.readouterr().out
    for asked in (first, first[:8]):
        assert query.main(["FROM rule", "--csv", "--as-of-run", asked]) == 0
        assert first in capsys.readouterr().out
    last = warehouse_of(study).snapshot()
    assert query.main(["FROM rule", "--csv", "--as-of", str(last)]) == 0
    assert second in capsys.readouterr().out
    for wrong, words in (
        (["--as-of", "99"], "has no snapshot 99"),
        (["--as-of-run", "nowhere"], "there is no run 'nowhere'"),
    ):
        assert query.main(["FROM rule", *wrong]) == 1
        assert words in capsys.readouterr().err


def test_upkeep_lists_snapshots_and_gives_them_up(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in range(3):
        warehouse_of(study).replace_table("t", pd.DataFrame({"a": [value]}))
    assert lake_upkeep.main(["--list"]) == 0
    assert "process " in capsys.readouterr().out
    assert lake_upkeep.main(["--keep", "0"]) == 0
    assert ": 1 snapshots, the oldest " in capsys.readouterr().out
    os.environ["IM_DEPLOYMENT"] = "this_machine"
    assert lake_upkeep.main([]) == 1
    assert "is a file and not a lake" in capsys.readouterr().err


def test_a_lake_is_exported_as_parquet_and_has_no_copy(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.DataFrame({"a": range(50)})
    assert snapshot.main(["--parquet"]) == 1
    assert "has not run" in capsys.readouterr().err
    warehouse_of(study).replace_table("t", rows)
    for arguments in ([], ["--restore"]):
        assert snapshot.main(arguments) == 1
        assert "the tables are in the lake" in capsys.readouterr().err
    assert snapshot.main(["--parquet"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert pd.read_parquet(folder / "t.parquet").equals(rows)
    names = {path.name for path in folder.iterdir()}
    assert names == {"t.parquet", "warehouse_version.parquet"}


def test_a_backup_says_that_the_tables_are_not_in_it(
    study: Study,
    lake_address: LakeAddress,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Warehouse(study.warehouse).replace_table("old", pd.DataFrame({"a": [1]}))  # of before the move
    url = lake_address.catalog.replace("://im@", f"://im:{servers.PASSWORD}@")
    monkeypatch.setenv(
        "DAGSTER_POSTGRES_URL", url.replace("postgresql://", "postgresql+psycopg2://")
    )
    programs = Path(str(servers.postgres_program("pg_ctl"))).parent
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("sys.argv", ["backup", "create", str(tmp_path / "backups")])
    assert backup.main() == 0
    made, told = capsys.readouterr().out.splitlines()
    manifest = json.loads((Path(made) / backup.MANIFEST).read_text())
    assert manifest["lake"] == str(lake_address)
    assert "warehouse.duckdb" not in manifest["files"]
    assert f"pg_dump --schema='\"{study.name}\"' {lake_address.catalog}" in told
    assert f"the files in {lake_address.folder}" in told
    assert servers.PASSWORD not in told
