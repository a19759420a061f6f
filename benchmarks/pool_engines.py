"""DuckDB against Ray Data at what cleaning needs of an engine, on one machine.

``python -m benchmarks.pool_engines [--rows 1000000] [--share 0.1] [--engines duckdb ray]``

The step is that of ``candidates/deciding.py``: of a pool's shards (Parquet files of 20,000 rows),
the texts of a share of the rows, which lie anywhere, in the order of their groups. For Ray Data it
is written as it is fastest there: the wanted rows are known to all workers, each file is filtered
by itself, and only what is left is sorted. Each engine runs in a process of its own; CPU seconds
and memory are of it and of all its children, looked at ten times a second. Memory is the most of
the sum of their resident sizes: what Ray's processes share is counted in each.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute

from benchmarks.scale import texts
from im_assets.candidates.shards import ROWS, Shards
from im_resources.warehouse import SQL, memory_limit

GROUP = 4  # rows of a group


def main() -> None:
    """Write the shards once, and run each engine on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.1, help="of the rows that are wanted")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        engine, folder = arguments.one
        print(json.dumps(measured(engine, Path(folder), arguments.rows, arguments.share)))
        return
    with tempfile.TemporaryDirectory(prefix="engines-") as folder:
        write(Path(folder), arguments.rows)
        for engine in arguments.engines:
            command = [sys.executable, "-m", "benchmarks.pool_engines", "--one", engine, folder]
            command += ["--rows", str(arguments.rows), "--share", str(arguments.share)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(engine, "  ".join(f"{name} {value:.1f}" for name, value in found.items()))


def write(folder: Path, rows: int) -> None:
    """The shards of a pool, about 450 bytes a row."""
    shards = Shards(folder / "rows", {})
    for number, (asked, said) in enumerate(texts(rows, seed=0)):
        place = {"source": "one", "file": "one.jsonl", "line": number + 1, "category": ""}
        shards.add({**place, "instruction": asked, "input": "", "output": said})
    shards.close()


def wanted(rows: int, share: float) -> pa.Table:
    """The rows that are wanted, and their groups, which are made of rows from anywhere."""
    draw = np.random.Generator(np.random.PCG64(0))
    numbers = draw.choice(rows, int(rows * share), replace=False)
    return pa.table({"number": numbers, "group": np.arange(len(numbers)) // GROUP})


def with_duckdb(folder: Path, alike: pa.Table) -> int:
    """The characters of the texts, as a sign that they were read."""
    import duckdb

    limit = f"{memory_limit() >> 20}MiB"
    options = {"memory_limit": limit, "temp_directory": str(folder)}
    with duckdb.connect(config=dict(options)) as connection:
        connection.register("alike", alike)
        statement = (SQL / "alike_rows.sql").read_text(encoding="utf-8")
        files = sorted(map(str, (folder / "rows").iterdir()))
        found = connection.execute(statement, {"files": files}).to_arrow_reader(4096)
        return sum(pa.compute.sum(pa.compute.utf8_length(b["output"])).as_py() for b in found)


def with_ray(folder: Path, alike: pa.Table) -> int:
    """As ``with_duckdb``, by Ray Data."""
    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    known = ray.put(alike.sort_by("number"))
    columns = ["number", "instruction", "input", "output", "turns"]

    def joined(batch: pa.Table) -> pa.Table:
        mine = ray.get(known)
        numbers = mine["number"].to_numpy()
        own = batch["number"].to_numpy()
        places = np.searchsorted(numbers, own).clip(0, len(numbers) - 1)
        hit = numbers[places] == own
        return batch.filter(pa.array(hit)).append_column("group", mine["group"].take(places[hit]))

    rows = ray.data.read_parquet(str(folder / "rows")).select_columns(columns)
    found = rows.map_batches(joined, batch_format="pyarrow", batch_size=ROWS)
    ordered = found.sort(["group", "number"])
    total = 0
    for batch in ordered.iter_batches(batch_format="pyarrow", batch_size=4096):
        total += pa.compute.sum(pa.compute.utf8_length(batch["output"])).as_py()
    ray.shutdown()
    return total


ENGINES = {"duckdb": with_duckdb, "ray": with_ray}


def measured(engine: str, folder: Path, rows: int, share: float) -> dict[str, Any]:
    """CPU and wall seconds, and the peak of memory in GB, of this process and its children."""

    alike = wanted(rows, share)
    peak, seconds, ended = [0.0], dict[int, float](), threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            held = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    held += process.memory_info().rss
                    seconds[process.pid] = sum(process.cpu_times()[:2])
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], held / 1e9)

    watcher, start = threading.Thread(target=look), time.perf_counter()
    watcher.start()
    characters = ENGINES[engine](folder, alike)
    wall = time.perf_counter() - start
    ended.set()
    watcher.join()
    return {"wall s": wall, "CPU s": sum(seconds.values()), "peak GB": peak[0],
            "characters": characters}  # fmt: skip


if __name__ == "__main__":
    main()
