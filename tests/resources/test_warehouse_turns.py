"""Somebody else has the file open: who it is gets said, and the write alone is tried again."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
import pytest

from im_resources import warehouse_turns as turns
from im_resources.study import PROJECT_ROOT
from im_resources.warehouse import Warehouse, WarehouseError
from im_resources.warehouse_io_manager import WarehouseIOManager

NOTEBOOK = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reads")
connection.execute("SELECT count(*) FROM losses").fetchall()
print("open", flush=True)
sys.stdin.readline()
"""
OURS = """
import sys
from pathlib import Path
from im_resources.warehouse_turns import Wait, turn
with turn(Wait(Path(sys.argv[1]), 1)):
    print("open", flush=True)
    sys.stdin.readline()
"""
ROWS = pd.DataFrame({"seed": ["a"], "value": [1]})


@contextmanager
def holding(code: str, path: Path, *how: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open, until a line is written to it."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path), *how],
        cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        try:
            yield child
        finally:
            close(child)


def close(child: subprocess.Popen[str]) -> None:
    if child.stdin is not None and not child.stdin.closed:
        child.stdin.close()
    child.wait()


def close_once(child: subprocess.Popen[str], told: threading.Event) -> None:
    told.wait(120)
    close(child)


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
    monkeypatch.setattr(turns, "REMINDER", 0.1)
    warehouse = Warehouse(tmp_path / "warehouse.duckdb", wait=0.3)
    warehouse.replace_rows("losses", ROWS, {"seed": "a"})
    return warehouse


def test_a_run_waits_for_a_notebook_and_repeats_the_write_alone(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    computed: list[int] = []

    @dg.asset
    def losses() -> pd.DataFrame:
        computed.append(1)
        return ROWS.assign(value=2)

    with (
        dg.DagsterInstance.ephemeral() as instance,
        holding(NOTEBOOK, warehouse.path, "writes") as notebook,
    ):
        told = threading.Event()

        class Closes(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "is in use by" in record.getMessage():
                    told.set()

        turns.LOG.addHandler(handler := Closes())
        closing = threading.Thread(target=close_once, args=(notebook, told))
        closing.start()
        try:
            result = dg.materialize(
                [losses],
                instance=instance,
                resources={"io_manager": WarehouseIOManager(database=str(warehouse.path))},
            )
        finally:
            told.set()
            closing.join()
            turns.LOG.removeHandler(handler)
        log = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert result.success
    assert computed == [1]
    assert warehouse.read_table("losses")["value"].tolist() == [2]
    (first, *_) = [line for line in log if "is in use by" in line]
    assert f"process {notebook.pid} ({sys.executable} -c" in first
    assert "running since 20" in first
    assert any("going on" in line for line in log)


def test_after_the_wait_the_error_names_the_holder_and_what_to_do(warehouse: Warehouse) -> None:
    with holding(NOTEBOOK, warehouse.path, "writes") as notebook:
        for use in (
            lambda: warehouse.replace_rows("losses", ROWS, {"seed": "a"}),
            lambda: warehouse.read_table("losses"),
        ):
            with pytest.raises(
                WarehouseError, match=r"close its connection.*make snapshot"
            ) as caught:
                use()
            assert f"by process {notebook.pid} (" in str(caught.value)
    assert len(warehouse.read_table("losses")) == 1


def test_a_notebook_that_only_reads_keeps_nobody_from_reading(warehouse: Warehouse) -> None:
    with holding(NOTEBOOK, warehouse.path, "reads") as notebook:
        assert len(warehouse.read_table("losses")) == 1
        with pytest.raises(WarehouseError, match=f"process {notebook.pid}"):
            warehouse.append("losses", ROWS, key=["seed"])


def test_a_process_of_ours_that_holds_the_turn_is_named(warehouse: Warehouse) -> None:
    with holding(OURS, warehouse.path) as other:
        with pytest.raises(WarehouseError, match="it has the file since") as caught:
            warehouse.read_table("losses")
        assert f"process {other.pid} (" in str(caught.value)
        other.kill()
        other.wait()
        assert len(warehouse.read_table("losses")) == 1  # and its death frees it


def test_another_connection_of_this_process_is_waited_for(warehouse: Warehouse) -> None:
    with (
        duckdb.connect(str(warehouse.path)),
        pytest.raises(WarehouseError, match="another connection of this process"),
    ):
        warehouse.read_table("losses")


def test_a_command_with_control_characters_is_named_without_them(warehouse: Warehouse) -> None:
    Path(f"{warehouse.path}.lock").write_text("process 1 (\x1b[2Jcat)")
    descriptor = os.open(f"{warehouse.path}.lock", os.O_RDONLY)
    try:
        assert turns.written(descriptor) == r"process 1 (\x1b[2Jcat)"
    finally:
        os.close(descriptor)


def test_reading_makes_no_file(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "nowhere" / "warehouse.duckdb")
    assert not warehouse.has_table("losses")
    with pytest.raises(WarehouseError, match="no table 'losses'"):
        warehouse.read_table("losses")
    assert not warehouse.path.parent.exists()


def test_a_query_cannot_write(warehouse: Warehouse) -> None:
    with pytest.raises(duckdb.InvalidInputException, match="read-only"):
        warehouse.query("DELETE FROM losses")
    warehouse.execute("DELETE FROM losses WHERE seed = $seed", {"seed": "a"})
    assert len(warehouse.read_table("losses")) == 0


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_wrong_wait_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turns.WAIT, text)
    with pytest.raises(WarehouseError, match=f"IM_WAREHOUSE_WAIT is '{text}'"):
        Warehouse(tmp_path / "warehouse.duckdb")
