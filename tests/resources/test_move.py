"""A study's tables go into a lake and come back, compared, whatever happens on the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from im_resources import move as module
from im_resources.lake_address import LakeAddress
from im_resources.move import MoveError, described, move
from im_resources.study import PROJECT_ROOT, load_study
from im_resources.warehouse import Warehouse

TABLES = {
    "losses": pd.DataFrame({"seed": ["b", "a", "c"] * 9, "loss": np.linspace(0, 1, 27)}),
    "vectors": pd.DataFrame({"id": ["x", "y"], "v": [np.ones(3, np.float32), np.zeros(0)]}),
    "kinds": pd.DataFrame({"kind": pd.Categorical(["k", "l", "k"]), "n": [1, None, 3]}),
    "empty": pd.DataFrame({"id": pd.Series([], dtype=object)}),
}


@pytest.fixture
def file(tmp_path: Path) -> Warehouse:
    file = Warehouse(tmp_path / "warehouse.duckdb")
    for name, frame in TABLES.items():
        file.replace_table(name, frame)
    file.execute("CREATE TABLE narrow (a INTEGER, b FLOAT[2], c TIMESTAMP)")
    file.execute("INSERT INTO narrow VALUES (1, [1, 2], '2026-01-01')")
    file.replace_rows("losses", pd.DataFrame({"seed": ["a"], "loss": [9.0]}), {"seed": "a"})
    return file


def test_there_and_back(file: Warehouse, lake_address: LakeAddress, tmp_path: Path) -> None:
    lake, back = Warehouse(lake_address), Warehouse(tmp_path / "back" / "warehouse.duckdb")
    rows = {"empty": 0, "kinds": 3, "losses": 19, "narrow": 1, "vectors": 2}
    assert move(file, lake) == rows
    assert move(lake, back) == rows
    for name in rows:
        pd.testing.assert_frame_equal(
            lake.read_table(name),
            file.read_table(name),
            check_categorical=False,
            check_dtype=name != "kinds",
        )
        assert described(back, name) == described(lake, name)
    assert lake.column_types("narrow") == {"a": "INTEGER", "b": "FLOAT[]", "c": "TIMESTAMP"}
    assert file.tables() == sorted(rows)


def test_what_is_there_already_is_not_copied_again(
    file: Warehouse, lake_address: LakeAddress
) -> None:
    lake = Warehouse(lake_address)
    move(file, lake)
    before = lake.snapshot()
    move(file, lake)
    assert lake.snapshot() == before


def test_other_data_is_replaced_only_when_told(file: Warehouse, lake_address: LakeAddress) -> None:
    lake = Warehouse(lake_address)
    lake.replace_table("losses", pd.DataFrame({"seed": ["mine"]}))
    lake.replace_table("more", pd.DataFrame({"a": [1]}))
    with pytest.raises(
        MoveError, match=r"holds other data than .* in losses, more: with --replace"
    ):
        move(file, lake)
    assert lake.tables() == ["losses", "more"]
    move(file, lake, replace=True)
    assert lake.tables() == file.tables()


def test_a_difference_in_order_type_or_value_is_seen(file: Warehouse) -> None:
    known = described(file, "losses")
    frame = file.read_table("losses")
    for other in (
        frame.iloc[::-1],
        frame.assign(loss=frame["loss"].astype(np.float32)),
        frame.assign(loss=[*frame["loss"][:-1], 9.5]),
        frame.rename(columns={"loss": "lost"}),
        pd.concat([frame, frame]),
    ):
        file.replace_table("losses", other)
        assert described(file, "losses") != known
    file.replace_table("losses", frame)
    assert described(file, "losses") == known


def test_a_source_that_is_written_to_meanwhile_is_told(
    file: Warehouse, lake_address: LakeAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = module._copy

    def and_another_writes(source: Warehouse, *others: object) -> None:
        copy(source, *others)  # type: ignore[arg-type]
        if others[1] == "losses":
            source.append("losses", pd.DataFrame({"seed": ["late"]}), ["seed"])

    monkeypatch.setattr(module, "_copy", and_another_writes)
    with pytest.raises(MoveError, match=r"losses differs .*somebody writes to one of them"):
        move(file, Warehouse(lake_address))


def test_nothing_is_not_moved(tmp_path: Path, lake_address: LakeAddress) -> None:
    with pytest.raises(MoveError, match="there is nothing to move"):
        move(Warehouse(tmp_path / "warehouse.duckdb"), Warehouse(lake_address))
    assert not Warehouse(lake_address).exists()


KILLED = """
import os, signal
from im_resources import move

copy = move._copy
def dying(source, target, name, types):
    copy(source, target, name, types)
    if name == "losses":
        os.kill(os.getpid(), signal.SIGKILL)

move._copy = dying
move.main(["--to-lake"])
"""


def test_the_command_can_be_killed_and_run_again(
    tmp_path: Path,
    lake_address: LakeAddress,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    monkeypatch.setenv("IM_PROFILE", "demo")
    assert module.main(["--to-lake"]) == 1
    assert "IM_DEPLOYMENT names no lake" in capsys.readouterr().err
    place = {"kind": "ducklake", "catalog": lake_address.catalog, "data": lake_address.data}
    deployment = tmp_path / "lake.yaml"
    deployment.write_text(yaml.safe_dump({"name": "lake", "warehouse": place}))
    monkeypatch.setenv("IM_DEPLOYMENT", str(deployment))
    study = load_study("demo")
    lake = Warehouse(LakeAddress(lake_address.catalog, study.name, lake_address.data))
    if lake.exists():  # of another test of this worker
        pytest.fail(f"{lake.name} is there")
    file = Warehouse(study.warehouse)
    for name, frame in TABLES.items():
        file.replace_table(name, frame)
    done = subprocess.run(
        [sys.executable, "-c", KILLED], check=False, cwd=PROJECT_ROOT, env=os.environ
    )
    assert done.returncode == -signal.SIGKILL
    assert set(lake.tables()) < set(TABLES)
    assert module.main(["--to-lake"]) == 0
    out = capsys.readouterr().out
    assert "losses: 27 rows, alike" in out
    assert f"4 tables are in {lake.name}; {study.warehouse} is as it was" in out
    study.warehouse.unlink()
    assert module.main(["--to-file"]) == 0
    for name in TABLES:
        assert described(file, name) == described(lake, name)
    lake.execute('DROP TABLE losses; DROP TABLE vectors; DROP TABLE kinds; DROP TABLE "empty"')
