"""Engines that files are attached to: what one use leaves behind, the next one does not see."""

import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from im_resources import duckdb_engines
from im_resources.study import PROJECT_ROOT
from im_resources.warehouse import Warehouse

ROWS = pd.DataFrame({"seed": ["a"], "value": [1]})
FORKS = """
import os, sys
from im_resources.warehouse import Warehouse
warehouse = Warehouse(sys.argv[1])
assert len(warehouse.read_table("losses")) == 1
child = os.fork()
if not child:
    os._exit(len(warehouse.query("SELECT sum(range) FROM range(2000000) GROUP BY range % 7")))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert len(warehouse.read_table("losses")) == 1
"""


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    warehouse = Warehouse(tmp_path / "a 'quoted' folder" / "warehouse.duckdb")
    warehouse.replace_rows("losses", ROWS, {"seed": "a"})
    return warehouse


def test_a_forked_process_reads_although_it_inherits_an_engine(warehouse: Warehouse) -> None:
    command = [sys.executable, "-c", FORKS, str(warehouse.path)]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, timeout=120)


def test_a_file_that_nobody_uses_is_open_for_others_and_has_no_log(warehouse: Warehouse) -> None:
    warehouse.read_table("losses")
    assert {path.name for path in warehouse.path.parent.iterdir()} == {
        "warehouse.duckdb", "warehouse.duckdb.lock",
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", "import duckdb, sys; duckdb.connect(sys.argv[1])", warehouse.path],
        check=True,
    )


def test_what_a_statement_sets_or_makes_for_itself_is_gone_with_it(warehouse: Warehouse) -> None:
    warehouse.query("CREATE TEMP TABLE mine AS SELECT 1; SET VARIABLE mine = 1")
    with pytest.raises(duckdb.CatalogException):
        warehouse.query("SELECT * FROM mine")
    assert warehouse.query("SELECT getvariable('mine') AS value")["value"].isna().all()


def test_an_error_undoes_the_write_and_leaves_nothing_to_the_next(warehouse: Warehouse) -> None:
    with pytest.raises(duckdb.Error):
        warehouse.execute("INSERT INTO losses VALUES ('b', 2); SELECT nothing_like_it")
    with pytest.raises(duckdb.Error):
        warehouse.execute("ROLLBACK; USE memory; INSERT INTO losses VALUES ('b', 2)")
    assert warehouse.read_table("losses")["seed"].tolist() == ["a"]


def test_threads_read_side_by_side(warehouse: Warehouse) -> None:
    met = threading.Barrier(3, timeout=60)
    rows = []

    def reads() -> None:
        with warehouse.arrow("SELECT count(*) FROM losses") as batches:
            met.wait()  # all three have the file open
            rows.append(batches.read_all().to_pydict())

    threads = [threading.Thread(target=reads) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows == [{"count_star()": [1]}] * 3
    assert len(duckdb_engines._idle) <= duckdb_engines.KEPT


def test_room_for_what_memory_does_not_hold_is_beside_the_file(warehouse: Warehouse) -> None:
    found = warehouse.query("SELECT current_setting('temp_directory') AS folder")
    assert found["folder"].tolist() == [f"{warehouse.path}.tmp"]


def test_a_file_put_in_the_place_of_another_is_read(warehouse: Warehouse, tmp_path: Path) -> None:
    other = Warehouse(tmp_path / "other" / "warehouse.duckdb")
    other.replace_rows("losses", ROWS.assign(value=2), {"seed": "a"})
    assert warehouse.read_table("losses")["value"].tolist() == [1]
    other.path.rename(warehouse.path)
    assert warehouse.read_table("losses")["value"].tolist() == [2]
