"""What sending work to a cluster costs, with work that only waits.

``python -m benchmarks.cluster [--slots 1 4 16 64] [--trials 1000] [--seconds 5 20 60] [--writes]``

Each run starts a Ray cluster of this machine, a head and one worker with as many logical slots as
asked for, a Postgres for the claims and a folder for the files. Finetunes go through the real path
(``finetune_all``, groups, board, store, claims), by a trainer that waits; nothing is trained, so
that more slots than cores can be measured. First, every slot does a finetune that is not counted,
since starting processes and importing torch is no scheduling: on one machine they share its cores.

seconds     of a group, as asked; every slot gets --each of them, so that trials are short in small
ideal       of all groups, were they begun at once in every slot, and nothing told, found or kept
overhead    (wall − ideal) / ideal; of groups of a minute too: the same seconds lost for each of the
            groups that a slot does, as a share of a minute
memory      the peak of this process, which sends the work, above what it was before
conflicts   with --writes: of appends of 500 rows to one table of a lake, by all slots at once, a
            write; and the seconds of one, the median

Printed as JSON, one line a measurement.
"""

import argparse
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

from benchmarks.waiting import writes
from im_assets.experiments.finetuning import Finetune, finetune_all
from im_resources.deployment.making import adapters_of, gpu_of, warehouse_of
from im_resources.deployment.schema import Deployment
from im_resources.plugins import load_plugins
from im_resources.study import Study, load_study
from im_resources.workplace import Workplace
from tests.cluster.nodes import ray_cluster
from tests.language_model.models import write_model
from tests.servers import PASSWORD, postgres

MINUTE = 60.0


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--trials", type=int, nargs="+", default=[1000])
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 20.0])
    parser.add_argument("--each", type=int, default=3, help="groups of each slot")
    parser.add_argument("--writes", action="store_true", help="to one table of a lake, too")
    asked = parser.parse_args()
    for slots in asked.slots:
        with tempfile.TemporaryDirectory(prefix="im-cluster-") as name, _site(
            Path(name), slots
        ) as site:  # fmt: skip
            for trials in asked.trials:
                for seconds in asked.seconds:
                    _print(site.trained(trials, seconds, asked.each))
            if asked.writes:
                _print(site.written(asked.each))


def _print(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


class Site:
    """A cluster with ``slots``, and studies on it."""

    def __init__(self, folder: Path, slots: int, address: str, catalog: str, model: Path) -> None:
        self.folder, self.slots, self.model = folder, slots, model
        self.deployment = Deployment.model_validate(
            {
                "name": "waiting",
                "executor": {"kind": "ray", "address": address, "device": "cpu", "gpus": 0,
                             "cpus": 1},
                "warehouse": {"kind": "ducklake", "catalog": catalog,
                              "data": str(folder / "tables")},
                "files": str(folder / "files"),
            }
        )  # fmt: skip
        self.warm = False

    def trained(self, trials: int, seconds: float, each: int) -> dict[str, Any]:
        """Finetunes in groups of so many seconds."""
        size = max(1, math.ceil(trials / (self.slots * each)))
        if not self.warm:
            self._finetuned(self.slots * 2, 0.5, 1)
            self.warm = True
        with _memory() as peak:
            wall = self._finetuned(trials, seconds / size, size)
        groups = math.ceil(trials / size)
        rounds = math.ceil(groups / self.slots)
        ideal = rounds * seconds if trials >= size else trials * seconds / size
        lost = (wall - ideal) / rounds
        return {
            "slots": self.slots, "trials": trials, "group of": size, "seconds": seconds,
            "groups": groups, "ideal": round(ideal, 1), "wall": round(wall, 1),
            "overhead": round(lost / seconds, 4),
            "overhead of groups of a minute": round(lost / MINUTE, 4),
            "memory (MiB)": peak[0],
        }  # fmt: skip

    def written(self, each: int) -> dict[str, Any]:
        """Appends by all slots at once."""
        study, deployment = self._study("writes", 0.0), self.deployment
        gpu = gpu_of(study, deployment)
        here = Workplace(study, gpu, None, warehouse_of(study, deployment))
        items = {str(number): number for number in range(self.slots * each * 4)}
        start = time.monotonic()
        done = dict(gpu.run(writes, items, here, seconds=0.5, rows=500))
        wall = time.monotonic() - start
        kept = here.tables.read_table("waited")
        assert len(kept) == 500 * len(items) == kept["example_id"].nunique()
        commits, conflicts, again, _ = (sum(found) for found in zip(*done.values(), strict=True))
        took = sorted(seconds for *_, seconds in done.values())  # the first of a process is slow
        return {
            "slots": self.slots, "writes": commits, "conflicts a write": conflicts / commits,
            "transactions done again": again, "seconds a write": round(took[len(took) // 2], 4),
            "slowest": round(took[-1], 4), "rows": len(kept), "wall": round(wall, 1),
        }  # fmt: skip

    def _finetuned(self, trials: int, seconds: float, size: int) -> float:
        """The seconds that so many new finetunes took."""
        study = self._study(f"t{trials}-{int(seconds * 1e6)}", seconds)
        executor = self.deployment.executor.model_copy(update={"group_size": size})
        deployment = self.deployment.model_copy(update={"executor": executor})
        rows = pd.DataFrame({"example_id": ["a", "b"], "instruction": "Say it.", "input": "",
                             "output": "It."})  # fmt: skip
        work = {f"seed-{n:05d}": Finetune(f"seed-{n:05d}", n, rows) for n in range(trials)}
        gpu, store = gpu_of(study, deployment), adapters_of(study, deployment)
        start = time.monotonic()
        done = sum(1 for _ in finetune_all(work, study, gpu, store, lambda *_: None))
        assert done == trials
        return time.monotonic() - start

    def _study(self, name: str, seconds: float) -> Study:
        data, source = {"path": "unused.jsonl"}, {"path": str(self.model)}
        profile = {
            "name": name,
            "data": {"candidates": {"a": data}, "unseen": data, "evaluation": data},
            "models": {"base": source, "embedding": source, "precision": "fp32", "max_length": 64},
            "finetuning": {"trainer": "waiting", "options": {"seconds": seconds}},
            "scoring": {"indicators": {"len_out": "response_length"}},
            "plugins": ["benchmarks.waiting"],
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(profile), encoding="utf-8")
        study = load_study(str(path))
        load_plugins(study)
        return study


@contextmanager
def _site(folder: Path, slots: int) -> Iterator[Site]:
    os.environ |= {"IM_HOME": str(folder / "driver"), "PGPASSWORD": PASSWORD}
    for name in ("files", "tables"):
        (folder / name).mkdir()
    model = write_model(folder / "model")
    with ExitStack() as held:
        database = held.enter_context(postgres())
        database.create("im")
        environment = {"PGPASSWORD": PASSWORD}
        cluster = held.enter_context(ray_cluster(1, slots, environment))
        yield Site(folder, slots, cluster.address, database.address("im"), model)


@contextmanager
def _memory() -> Iterator[list[float]]:
    """The peak of this process in the block above its start, MiB, once it is over."""
    process, over, found = psutil.Process(), threading.Event(), [0.0]
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.2):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found[0] = round((peak - before) / 2**20, 1)


if __name__ == "__main__":
    main()
