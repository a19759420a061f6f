"""Real processes: killed in the middle of a write, or writing all at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from im_resources.study import PROJECT_ROOT
from im_resources.warehouse import Warehouse

# Writes a partition; dies after its delete, before or after its insert, with nothing committed.
DIES = """
import os, signal, sys
import pandas as pd
from im_resources import warehouse as module

insert = module.insert
def dying(*args):
    if sys.argv[2] == "after":
        insert(*args)
    os.kill(os.getpid(), signal.SIGKILL)

module.insert = dying
frame = pd.DataFrame({"seed": "a", "value": range(200_000), "new": "column"})
module.Warehouse(sys.argv[1]).replace_rows("losses", frame, {"seed": "a"})
"""

# Dies between its commit, which is in the write-ahead log, and the checkpoint that closing makes.
COMMITS = """
import os, signal, sys
import duckdb

connection = duckdb.connect(sys.argv[1])
connection.begin()
connection.execute("INSERT INTO losses VALUES ('b', 2)")
connection.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""

# Writes a partition again and again, every row carrying the number of its write.
WRITES = """
import sys
import pandas as pd
from im_resources.warehouse import Warehouse

path, seed, times, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(times):
    frame = pd.DataFrame({"seed": seed, "turn": [turn] * size})
    Warehouse(path).replace_rows("losses", frame, {"seed": seed})
"""

# Reads again and again; a partition is there whole, and of one write, or not yet.
READS = """
import sys
from im_resources.warehouse import Warehouse

print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    found = Warehouse(sys.argv[1]).query(
        "SELECT count(*) AS n, count(DISTINCT turn) AS turns FROM losses "
        "WHERE seed != 'x' GROUP BY seed"
    )
    assert set(found["n"]) <= {100} and set(found["turns"]) <= {1}, found
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=PROJECT_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(*children: subprocess.Popen[str]) -> None:
    """Let the children write, once all have imported everything."""
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_between_delete_and_commit_loses_nothing(
    tmp_path: Path, when: str
) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    good = pd.DataFrame({"seed": ["a", "a", "b"], "value": [1, 2, 3]})
    warehouse.replace_rows("losses", good, {"seed": ["a", "b"]})
    with start(DIES, str(warehouse.path), when) as child:
        assert child.wait() == -signal.SIGKILL
    assert warehouse.read_table("losses").to_dict("list") == good.to_dict("list")
    warehouse.replace_rows("losses", good[:1], {"seed": "a"})
    assert len(warehouse.read_table("losses")) == 2


def test_what_was_committed_before_the_kill_stays_though_it_is_only_in_the_log(
    tmp_path: Path,
) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_rows("losses", pd.DataFrame({"seed": ["a"], "value": [1]}), {"seed": "a"})
    with start(COMMITS, str(warehouse.path)) as child:
        assert child.wait() == -signal.SIGKILL
    assert Path(f"{warehouse.path}.wal").exists()
    assert sorted(warehouse.read_table("losses")["seed"]) == ["a", "b"]
    warehouse.replace_rows("losses", pd.DataFrame(), {"seed": "b"})
    assert warehouse.read_table("losses")["seed"].tolist() == ["a"]
    assert not Path(f"{warehouse.path}.wal").exists()


def test_kills_at_any_moment_leave_one_whole_write(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    size, pause = 50_000, random.Random(0)
    good = pd.DataFrame({"seed": "a", "turn": [-1] * size})
    warehouse.replace_rows("losses", good, {"seed": "a"})
    for _ in range(3):
        with start(WRITES, str(warehouse.path), "a", "100000", str(size)) as child:
            go(child)
            time.sleep(pause.uniform(0.05, 0.4))
            child.kill()
        turns = warehouse.query("SELECT turn, count(*) AS n FROM losses GROUP BY turn")
        assert turns["n"].tolist() == [size], json.dumps(turns.to_dict("list"))


def test_processes_write_and_read_at_the_same_time(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_rows("losses", pd.DataFrame({"seed": ["x"], "turn": [0]}), {"seed": "x"})
    children = [start(WRITES, str(warehouse.path), seed, "10", "100") for seed in "abcd"]
    children += [start(READS, str(warehouse.path), "30") for _ in range(2)]
    go(*children)
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0] * 6
    stored = warehouse.read_table("losses", where={"seed": list("abcd")}).groupby("seed")["turn"]
    assert stored.count().to_dict() == dict.fromkeys("abcd", 100)
    assert set(stored.max()) == set(stored.min()) == {9}
