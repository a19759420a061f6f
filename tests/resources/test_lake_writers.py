"""Several processes write to one lake at once, are killed, and lose the catalog."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from im_resources.catalog_locks import catalog_lock
from im_resources.lake_address import LakeAddress
from im_resources.study import PROJECT_ROOT
from im_resources.warehouse import Warehouse, WarehouseError
from tests import lakes, servers

# Appends rows that others append too, replaces rows of its own in a table that all write to and
# gives it a column, and makes a table of its own again and again.
WRITES = """
import sys
import pandas as pd
from im_resources.warehouse import Warehouse

where, name, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
appended = 0
for turn in range(times):
    warehouse = Warehouse(where, wait=100)
    rows = pd.DataFrame({"key": range(turn * 10, turn * 10 + 20), "by": name})
    appended += warehouse.append("scores", rows, ["key"])
    own = pd.DataFrame({"seed": name, "turn": [turn] * 15, f"only_{name}": turn})
    warehouse.replace_rows("losses", own, {"seed": name})
    warehouse.replace_table(f"own_{name}", pd.DataFrame({"turn": [turn], f"c{turn % 3}": turn}))
print(appended, flush=True)
"""

# Says when its rows are written and not yet committed, and waits there.
LINGERS = """
import sys, time
import pandas as pd
from im_resources import warehouse as module

insert = module.insert
def lingering(*args):
    done = insert(*args)
    print("written", flush=True)
    time.sleep(600)
    return done

module.insert = lingering
frame = pd.DataFrame({"key": range(5000), "new": "column"})
module.Warehouse(sys.argv[1]).append("scores", frame, ["key"])
"""

# Appends one row after the other, and says so.
APPENDS = """
import sys
import pandas as pd
from im_resources.warehouse import Warehouse

for key in range(int(sys.argv[2])):
    added = Warehouse(sys.argv[1], wait=100).append("scores", pd.DataFrame({"key": [key]}), ["key"])
    print(key, added, flush=True)
"""


@pytest.fixture
def warehouse(lake_address: LakeAddress) -> Warehouse:
    return Warehouse(lake_address)


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=PROJECT_ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_writers_at_once_lose_nothing_and_double_nothing(warehouse: Warehouse) -> None:
    children = {name: start(WRITES, warehouse.name, name, "6") for name in "abc"}
    try:
        for child in children.values():
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children.values():
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        said = {name: child.communicate(timeout=240) for name, child in children.items()}
    finally:
        for child in children.values():
            child.kill()
    assert [child.returncode for child in children.values()] == [0, 0, 0], said
    scores = warehouse.read_table("scores")
    assert sorted(scores["key"]) == list(range(70))
    # Each tells truly how many it was that added.
    counts = scores["by"].value_counts().to_dict()
    assert {name: int(out) for name, (out, _) in said.items()} == {
        n: counts.get(n, 0) for n in "abc"
    }
    losses = warehouse.read_table("losses")
    assert losses.groupby("seed").size().to_dict() == {"a": 15, "b": 15, "c": 15}
    assert set(losses["turn"]) == {5}
    assert {f"only_{name}" for name in "abc"} < set(losses)
    for name in "abc":
        assert warehouse.read_table(f"own_{name}").to_dict("list") == {"turn": [5], "c2": [5]}


def test_threads_of_one_process_write_to_one_table_and_to_others(warehouse: Warehouse) -> None:
    failed: list[BaseException] = []

    def writes(name: str) -> None:
        try:
            for turn in range(4):
                rows = pd.DataFrame({"key": range(turn * 5, turn * 5 + 10)})
                Warehouse(warehouse.name).append("scores", rows, ["key"])
                Warehouse(warehouse.name).replace_table(f"own_{name}", rows)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=writes, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(warehouse.read_table("scores")["key"]) == list(range(25))
    assert all(len(warehouse.read_table(f"own_{name}")) == 10 for name in "abcd")


def test_a_writer_that_is_killed_leaves_nothing_and_keeps_nobody_waiting(
    warehouse: Warehouse,
) -> None:
    warehouse.append("scores", pd.DataFrame({"key": [1, 2]}), ["key"])
    with start(LINGERS, warehouse.name) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        impatient = Warehouse(warehouse.name, wait=0)
        with pytest.raises(WarehouseError, match=f"written to for .* by process {child.pid} on"):
            impatient.append("scores", pd.DataFrame({"key": [3]}), ["key"])
        assert len(impatient.read_table("scores")) == 2  # nobody who reads waits
        impatient.replace_table("others", pd.DataFrame({"a": [1]}))  # nor who writes elsewhere
        child.kill()
    assert warehouse.append("scores", pd.DataFrame({"key": [2, 3]}), ["key"]) == 1
    assert warehouse.read_table("scores").to_dict("list") == {"key": [1, 2, 3]}


def test_a_statement_that_may_write_anywhere_waits_for_all(warehouse: Warehouse) -> None:
    warehouse.replace_table("t", pd.DataFrame({"a": [1]}))
    assert isinstance(warehouse.place, object)
    schema = LakeAddress.parse(warehouse.name)
    assert schema is not None
    with catalog_lock(schema.catalog, f"{schema.schema}/every table", None) as held:
        assert held
        impatient = Warehouse(warehouse.name, wait=0)
        with pytest.raises(WarehouseError, match="written to"):
            impatient.execute("DROP TABLE t")
        with pytest.raises(WarehouseError, match="written to"):
            impatient.replace_table("t", pd.DataFrame({"a": [2]}))
    warehouse.execute("DROP TABLE t")
    assert not warehouse.has_table("t")


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[tuple[servers.Postgres, Warehouse]]:
    """A lake whose catalog is of this test alone."""
    lakes.skip_without_servers()
    with lakes.catalog() as (server, address):
        yield server, Warehouse(lakes.lake_in(address, tmp_path / "lake"), wait=100)


def crash(server: servers.Postgres) -> None:
    server.stop(signal.SIGQUIT)


def test_writers_go_on_when_the_catalog_has_restarted(
    mortal: tuple[servers.Postgres, Warehouse],
) -> None:
    server, warehouse = mortal
    warehouse.append("scores", pd.DataFrame({"key": [-1]}), ["key"])
    chosen = random.Random(0)
    with start(APPENDS, warehouse.name, "40") as child:
        assert child.stdout is not None
        lines: list[str] = []
        for wanted in (5, 20):
            while len(lines) < wanted:
                lines.append(child.stdout.readline())
                assert lines[-1], child.communicate()
            time.sleep(chosen.random() * 0.05)  # somewhere in a write
            crash(server)
            server.start()
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
    # Each was added once, and counted as added by who added it, whatever became of the answer.
    assert [*lines, *out.splitlines(keepends=True)] == [f"{key} 1\n" for key in range(40)]
    assert warehouse.read_table("scores")["key"].tolist() == list(range(-1, 40))


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    mortal: tuple[servers.Postgres, Warehouse], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, warehouse = mortal
    warehouse.replace_table("t", pd.DataFrame({"n": [1]}))
    place: Any = warehouse.place
    marked = place._marked
    crashed: list[bool] = []

    def lost(*args: Any) -> int | None:
        """The catalog goes away after the commit, before its answer is heard."""
        if not crashed:
            crashed.append(True)
            crash(server)
            server.start()
        found: int | None = marked(*args)
        return found

    monkeypatch.setattr(place, "_marked", lost)
    # Not repeatable: done twice, it would give 4.
    warehouse.execute("UPDATE t SET n = n * 2")
    assert crashed
    assert warehouse.read_table("t")["n"].tolist() == [2]


def test_who_reads_waits_for_the_catalog_and_is_told_when_it_stays_away(
    mortal: tuple[servers.Postgres, Warehouse],
) -> None:
    server, warehouse = mortal
    warehouse.replace_table("t", pd.DataFrame({"n": [1]}))
    crash(server)
    impatient = Warehouse(warehouse.name, wait=0)
    does_not_answer: list[Callable[[], object]] = [
        lambda: impatient.read_table("t"),
        lambda: impatient.replace_table("t", pd.DataFrame({"n": [2]})),
        impatient.exists,
    ]
    for act in does_not_answer:
        with pytest.raises(WarehouseError, match="does not answer: see that its Postgres") as told:
            act()
        assert "\n" not in str(told.value)
        assert servers.PASSWORD not in str(told.value)
    back = threading.Timer(0.5, server.start)
    back.start()
    try:
        assert warehouse.read_table("t")["n"].tolist() == [1]
    finally:
        back.join()


def test_a_forked_child_leaves_its_parents_sessions_alone(warehouse: Warehouse) -> None:
    warehouse.replace_table("t", pd.DataFrame({"n": [1]}))
    child = getattr(os, "fork")()  # noqa: B009  Linux alone has these tests
    if child == 0:
        good = False
        try:
            Warehouse(warehouse.name).append("t", pd.DataFrame({"n": [2]}), ["n"])
            good = Warehouse(warehouse.name).read_table("t")["n"].tolist() == [1, 2]
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    warehouse.append("t", pd.DataFrame({"n": [3]}), ["n"])
    assert warehouse.read_table("t")["n"].tolist() == [1, 2, 3]
