"""A snapshot is a whole copy that readers can keep open, and a way back from a damaged file."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from im_resources import snapshot as module
from im_resources.snapshot import export_parquet, restore, snapshot
from im_resources.study import Study, load_study
from im_resources.warehouse import Warehouse, WarehouseError

ROWS = pd.DataFrame({"seed": ["a", "b"], "vector": [[1.0, 2.0], [3.0]]})


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    monkeypatch.setenv("IM_PROFILE", "demo")
    monkeypatch.setenv("IM_WAREHOUSE_WAIT", "0.1")
    return load_study("demo")


def write(study: Study, rows: pd.DataFrame = ROWS) -> None:
    Warehouse(study.warehouse).replace_table("losses", rows)


def seeds(path: Path) -> list[str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute("SELECT seed FROM losses ORDER BY seed").df()["seed"].tolist()


def test_a_reader_keeps_its_snapshot_while_the_study_writes_and_makes_another(
    study: Study,
) -> None:
    write(study)
    path = snapshot(study)
    assert path.stat().st_mode & 0o777 == 0o444
    with duckdb.connect(str(path), read_only=True) as reader:
        write(study, ROWS[:1])
        assert snapshot(study) == path
        assert reader.execute("SELECT count(*) FROM losses").fetchall() == [(2,)]
    assert seeds(path) == ["a"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_a_killed_writer_left_in_the_log_is_in_the_snapshot(study: Study) -> None:
    write(study)
    dies = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); "
        "c.execute(\"INSERT INTO losses VALUES ('c', [5.0])\"); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", dies, str(study.warehouse)], check=True)
    assert Path(f"{study.warehouse}.wal").exists()
    assert seeds(snapshot(study)) == ["a", "b", "c"]


def test_a_damaged_warehouse_never_replaces_a_good_snapshot_which_brings_it_back(
    study: Study,
) -> None:
    write(study, pd.DataFrame({"seed": [f"{i * i:09}" for i in range(100_000)]}))
    path = snapshot(study)
    good = path.read_bytes()
    content = study.warehouse.read_bytes()
    damaged = content[: len(content) // 2] + b"\7" * 4_096 + content[len(content) // 2 + 4_096 :]
    study.warehouse.write_bytes(damaged)
    with pytest.raises(WarehouseError, match="is damaged: bring back the snapshot of 20"):
        snapshot(study)
    assert path.read_bytes() == good
    assert restore(study) == study.warehouse
    assert len(seeds(study.warehouse)) == 100_000
    write(study)  # it can be written again
    (before,) = study.warehouse.parent.glob("warehouse.duckdb.before-*")
    assert before.read_bytes() == damaged


def test_a_damaged_copy_is_not_restored(study: Study, tmp_path: Path) -> None:
    write(study)
    copy = tmp_path / "backup.duckdb"
    copy.write_bytes(snapshot(study).read_bytes()[:20_000])
    with pytest.raises(WarehouseError, match=r"backup\.duckdb is damaged"):
        restore(study, copy)
    with pytest.raises(WarehouseError, match="there is no copy"):
        restore(study, tmp_path / "none.duckdb")
    assert seeds(study.warehouse) == ["a", "b"]
    assert not list(study.warehouse.parent.glob("*.before-*"))


def test_a_warehouse_in_use_is_not_replaced(study: Study) -> None:
    write(study)
    snapshot(study)
    with (
        duckdb.connect(str(study.warehouse)),
        pytest.raises(WarehouseError, match="in use"),
    ):
        restore(study)
    assert seeds(study.warehouse) == ["a", "b"]


def test_parquet_is_one_file_a_table(study: Study) -> None:
    write(study)
    for _ in range(2):
        folder = export_parquet(study)
    assert sorted(p.name for p in folder.iterdir()) == [
        "losses.parquet",
        "warehouse_version.parquet",
    ]
    back = pd.read_parquet(folder / "losses.parquet")
    assert [list(v) for v in back["vector"]] == ROWS["vector"].tolist()


def test_the_command_makes_restores_and_says_what_is_missing(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main([]) == 1
    assert "has not run" in capsys.readouterr().err
    write(study)
    assert module.main([]) == 0
    study.warehouse.unlink()
    assert module.main(["--restore"]) == 0
    assert seeds(study.warehouse) == ["a", "b"]
