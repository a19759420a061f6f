"""Each fault made for real: one line that says what to do, and nothing stored is lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from im_resources.study import PROJECT_ROOT
from im_resources.warehouse import Warehouse, WarehouseError

# Forked before DuckDB has any thread. A limit on a file's size stands in for a full disk, and with
# the signal's default for a kill in the middle of a write; a user without rights for the folder's.
CHILD = """
import os, resource, shutil, signal, sys
from pathlib import Path
import pandas as pd
from im_resources.warehouse import Warehouse

folder, what, limits = Path(sys.argv[1]), sys.argv[2], map(int, sys.argv[3:])
frame = pd.DataFrame({"seed": "a", "turn": 1, "text": [f"{i} of {i * i}" for i in range(20_000)]})
for limit in limits:
    if os.fork() == 0:
        if what == "rights":
            if os.getuid() == 0:
                os.setuid(65534)
        else:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN if what == "full" else signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            path = folder / str(limit) / "warehouse.duckdb"
            Warehouse(path).replace_rows("losses", frame, {"seed": "a"})
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        os._exit(0)
    print(os.WTERMSIG(os.wait()[1]), flush=True)
"""
GOOD = pd.DataFrame({"seed": ["a", "a"], "turn": [0, 0], "text": ["x", "y"]})


def stored(path: Path) -> Warehouse:
    warehouse = Warehouse(path)
    warehouse.replace_rows("losses", GOOD, {"seed": "a"})
    return warehouse


def run(folder: Path, what: str, *limits: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), what, *map(str, limits)],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def turns(path: Path) -> dict[int, int]:
    found = Warehouse(path).query("SELECT turn, count(*) AS n FROM losses GROUP BY turn")
    return {int(turn): int(n) for turn, n in found.itertuples(index=False)}


@pytest.mark.parametrize("what", ["full", "killed"])
def test_a_disk_that_fills_or_a_kill_within_a_write_leaves_one_whole_write(
    tmp_path: Path, what: str
) -> None:
    warehouse = stored(tmp_path / "before" / "warehouse.duckdb")
    size = warehouse.path.stat().st_size
    limits = [size + extra for extra in (0, 1, 5_000, 100_000, 262_144, 300_000, 400_000, 524_288)]
    for limit in limits:
        shutil.copytree(warehouse.path.parent, tmp_path / str(limit))
    said = run(tmp_path, what, *limits)
    if what == "full":
        told = [line for line in said if line.startswith("WarehouseError")]
        assert told
        assert all("no room on the disk for" in line and "is intact" in line for line in told)
        assert all(line.startswith("WarehouseError") or line == "0" for line in said)
    else:
        assert said.count("25") >= 2  # SIGXFSZ
    for limit in limits:
        path = tmp_path / str(limit) / "warehouse.duckdb"
        assert turns(path) in ({0: 2}, {1: 20_000})
        assert turns(stored(path).path) == {0: 2}


@pytest.mark.parametrize("what", ["full", "killed"])
def test_a_file_that_could_not_be_made_is_not_in_the_way(tmp_path: Path, what: str) -> None:
    limits = (100, 4_096, 5_000, 13_000)
    said = run(tmp_path, what, *limits)
    assert len([line for line in said if "no room" in line or line == "25"]) == len(limits)
    for limit in limits:
        assert turns(stored(tmp_path / str(limit) / "warehouse.duckdb").path) == {0: 2}


def test_a_folder_without_rights_is_named(tmp_path: Path) -> None:
    warehouse = stored(tmp_path / "0" / "warehouse.duckdb")
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o755)
    warehouse.path.chmod(0o444)
    warehouse.path.parent.chmod(0o555)
    try:
        said = run(tmp_path, "rights", 0)
    finally:
        warehouse.path.parent.chmod(0o755)
        warehouse.path.chmod(0o644)
    assert "cannot be written: give this user the right" in said[0]
    assert turns(warehouse.path) == {0: 2}


DAMAGES = {
    "no database": lambda content: b"hello\n" * 2_000,
    "empty": lambda content: b"",
    "its head": lambda content: b"\0" * 64 + content[64:],
    "both headers": lambda content: content[:4_096] + b"\0" * 8_192 + content[12_288:],
    "cut in half": lambda content: content[: len(content) // 2],
    "blocks": lambda content: content[:12_288] + b"\7" * (len(content) - 12_288),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_the_way_back(tmp_path: Path, damage: str) -> None:
    rng = np.random.default_rng(0)
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_table("scores", pd.DataFrame({"value": rng.normal(size=100_000)}))
    damaged = DAMAGES[damage](warehouse.path.read_bytes())
    warehouse.path.write_bytes(damaged)
    with pytest.raises(WarehouseError) as caught:
        warehouse.query("SELECT sum(value) FROM scores")
    (line,) = str(caught.value).splitlines()
    assert f"the warehouse {warehouse.path} is damaged" in line
    assert "make snapshot" in line
    assert "nothing is trained again" in line
    assert warehouse.path.read_bytes() == damaged
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "warehouse.duckdb").touch()
    with pytest.raises(WarehouseError, match=r"im_resources\.snapshot --restore"):
        warehouse.query("SELECT sum(value) FROM scores")


def test_a_damaged_log_is_told_apart(tmp_path: Path) -> None:
    warehouse = stored(tmp_path / "warehouse.duckdb")
    leaves_a_log = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.begin(); "
        "c.execute('CREATE TABLE b AS SELECT range i FROM range(1000)'); c.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", leaves_a_log, str(warehouse.path)], check=True)
    log = Path(f"{warehouse.path}.wal")
    content = log.read_bytes()
    log.write_bytes(content[:100] + b"\7" * 50 + content[150:])
    with pytest.raises(WarehouseError, match=r"warehouse\.duckdb\.wal is damaged: move it away"):
        stored(warehouse.path)
    log.rename(tmp_path / "away")
    assert turns(warehouse.path) == {0: 2}


def test_words_in_the_data_are_not_taken_for_a_fault(tmp_path: Path) -> None:
    warehouse = stored(tmp_path / "warehouse.duckdb")
    with pytest.raises(Exception, match="No space left") as caught:
        warehouse.query("SELECT CAST('No space left' AS INTEGER)")
    assert not isinstance(caught.value, WarehouseError)
