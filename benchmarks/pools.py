"""A large pool from its files to a selection: seconds, memory, bytes on disk, and how they grow.

``python -m benchmarks.pools [--rows 100000 300000 1000000] [--home DIR] [--again STAGE …]``

In a file; with ``--lake`` in a lake of a Postgres that is started for it, with data in DIR; with
``IM_DEPLOYMENT`` set, where that says. Rows are synthetic, about 450 bytes each: in twenty, one is
a copy of a row before, one has a word more, and now and then one leaks the evaluation set. Each
stage is the materialization of an asset of the real definitions, in a process of its own, with
every score in the cache, so that no model runs:

stage        asset
cleaning     dolly_dataset, against an evaluation set of 300 rows, and its check for leaks
filling      no asset: random scores go into score_cache, and counts of tokens into cut_cache
scores       dolly_scores: eight indicators
indicators   dolly_indicators for published_v2
selection    dolly_selection of 1000 by it, and its checks

Figures are kept in DIR/figures.json as they come: a run that was stopped goes on with the stage
that it was at. Seconds are of this process, user and system; memory is the most that it held (RSS);
disk is the most that the study's folder held, with a lake's data where that is a folder.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from benchmarks.scale import BLOCK, EVALUATION, _peak, _succeeded, run, texts
from im_resources.study import PROJECT_ROOT

STAGES = ("cleaning", "filling", "scores", "indicators", "selection")
ASSETS = {name: f"dolly_{name}" for name in STAGES} | {"cleaning": "dolly_dataset"}
CHECKED = ("cleaning", "selection")
RECENT = 1000  # rows that a copy is made of


def main() -> None:
    """Measure the stages at each size; print a line for each, and the exponents."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--home", type=Path, help="folder to work in; default: a temporary one")
    parser.add_argument("--again", nargs="+", choices=STAGES, default=[], help="measure anew")
    parser.add_argument("--remove", action="store_true", help="each size's folder once measured")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--lake", action="store_true", help="in a lake, not in a file")
    arguments = parser.parse_args()
    if arguments.one:
        stage, folder = arguments.one
        print(json.dumps(measured(stage, Path(folder))))
        return
    home = (arguments.home or Path(tempfile.mkdtemp(prefix="pools-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    with lake(home) if arguments.lake else nullcontext():
        measure(arguments, home)


@contextmanager
def lake(home: Path) -> Iterator[None]:
    """Sets ``IM_DEPLOYMENT`` to a lake that is there until the end of the block."""
    from tests import servers

    with servers.postgres() as database:
        catalog = database.create("pools")
        place = {"kind": "ducklake", "catalog": catalog, "data": str(home / "lake")}
        path = home / "lake.yaml"
        path.write_text(yaml.safe_dump({"name": "lake", "warehouse": place}), encoding="utf-8")
        os.environ |= {"PGPASSWORD": servers.PASSWORD, "IM_DEPLOYMENT": str(path)}
        yield


def measure(arguments: argparse.Namespace, home: Path) -> None:
    """Measure, print and keep what is not there yet, and print the exponents."""
    print(
        f"{os.cpu_count()} CPUs, in {home}, deployment {os.environ.get('IM_DEPLOYMENT', 'local')}"
    )
    print(f"{'stage':10} {'rows':>9} {'CPU s':>8} {'wall s':>8} {'peak GB':>8} {'disk GB':>8}")
    kept = home / "figures.json"
    found: dict[str, dict[str, Any]] = {}
    if kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))
    for rows in arguments.rows:
        folder = home / str(rows)
        # The tables of a lake that was started for it are gone when it has ended.
        lost = arguments.lake and any(f"{stage} {rows}" not in found for stage in STAGES)
        for stage in STAGES:
            key = f"{stage} {rows}"
            if key not in found or stage in arguments.again or lost:
                if not (folder / "written").exists():
                    write(folder, rows)
                one = run(folder, "--one", stage, str(folder), module="benchmarks.pools")
                figures = json.loads(one.splitlines()[-1])
                found[key] = {"stage": stage, "rows": rows, **figures}
                kept.write_text(json.dumps(found, indent=1), encoding="utf-8")
            one = found[key]
            print(
                f"{stage:10} {rows:9} {one['cpu']:8.1f} {one['wall']:8.1f} {one['peak']:8.2f} "
                f"{one['disk']:8.2f}   load {one['load']:.1f}",
                flush=True,
            )
        if arguments.remove:
            shutil.rmtree(folder, ignore_errors=True)
    table = pd.DataFrame([one for one in found.values() if one["rows"] in arguments.rows])
    if len(arguments.rows) > 1:
        print("\nexponents of growth (log-log least squares), and bytes of memory a row more")
        for name, part in table.groupby("stage", sort=False):
            logs = [
                np.polyfit(np.log(part["rows"]), np.log(part[c]), 1)[0] for c in ("cpu", "peak")
            ]
            more = np.polyfit(part["rows"], part["peak"] * 1e9, 1)[0]
            print(f"{name!s:10} seconds {logs[0]:.2f}   memory {logs[1]:.2f}   {more:6.0f} bytes")


def measured(stage: str, folder: Path) -> dict[str, float]:
    """Do a stage in this process."""
    from tests.study import Platform, history

    with history(folder / f"history-{stage}") as instance:
        platform = Platform(folder / "pools.yaml", instance)
        if stage == "cleaning":
            _succeeded(platform.materialize("eval_set", checks=False))
            _succeeded(platform.materialize("quality_rule", checks=False))
        before, start = time.process_time(), time.perf_counter()
        with _peak() as peak, _most_on_disk(folder / platform.study.name) as disk:
            if stage == "filling":
                fill(platform.study)
            else:
                asset, checked = ASSETS[stage], stage in CHECKED
                _succeeded(platform.materialize(asset, checks=checked))
        wall, cpu = time.perf_counter() - start, time.process_time() - before
    load = os.getloadavg()[0]
    return {"cpu": cpu, "wall": wall, "peak": peak[0], "disk": disk[0], "load": load}


@contextmanager
def _most_on_disk(study: Path) -> Iterator[list[float]]:
    """The most that the study's folder, and a lake's data beside it, hold meanwhile, in GB."""
    from im_resources.deployment.reading import load_deployment
    from im_resources.deployment.schema import LakeWarehouse

    folders, warehouse = [study], load_deployment().warehouse
    if isinstance(warehouse, LakeWarehouse) and "://" not in warehouse.data:
        folders.append(Path(warehouse.data) / study.name)
    most, ended = [0.0], threading.Event()

    def look() -> None:
        over = False
        while True:
            held = 0
            for path in (path for folder in folders for path in folder.rglob("*")):
                try:
                    held += path.stat().st_size
                except FileNotFoundError:
                    continue
            most[0] = max(most[0], held / 1e9)
            if over:
                return
            over = ended.wait(1)  # and look once more

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield most
    ended.set()
    thread.join()


def write(folder: Path, rows: int) -> None:
    """The pool's file, the evaluation set, and the profile."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    held_out = list(texts(EVALUATION, seed=1))
    lines = (json.dumps({"instruction": asked, "outputs": [said]}) for asked, said in held_out)
    (data / "evaluation.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw, recent = random.Random(0), list[tuple[str, str]]()
    with (data / "pool.jsonl").open("w", encoding="utf-8") as file:
        for number, (asked, said) in enumerate(texts(rows, seed=0)):
            row = asked, said
            if (kind := draw.random()) < 0.05 and recent:
                row = draw.choice(recent)
            elif kind < 0.10 and recent:
                one = draw.choice(recent)
                row = one[0], f"{one[1]} {number}"
            elif kind < 0.1001:
                row = asked, draw.choice(held_out)[1]
            recent = [*recent[-RECENT:], row] if number % 10 == 0 else recent
            line = {"instruction": row[0], "context": "", "response": row[1], "category": "qa"}
            file.write(json.dumps(line) + "\n")
    demo = yaml.safe_load((PROJECT_ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    profile = {
        "name": f"pools_{rows}",  # a lake holds all sizes
        "data": {
            "unseen": {"path": str(data / "pool.jsonl"), "format": "dolly"},
            "evaluation": {"path": str(data / "evaluation.jsonl"), "outputs": "outputs"},
        },
        "models": {**demo["models"], "precision": "fp32"},
        "scoring": {"indicators": demo["scoring"]["indicators"]},
        "rule": {"source": "published_v2"},
        "selection": {"size": 1000},
    }
    (folder / "pools.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    (folder / "written").touch()


def fill(study: Any) -> None:
    """The caches, as if the pool had been scored; embeddings are those of nobody but the selected,
    and nothing that is measured here reads them."""
    from im_assets.scoring.batch import Models
    from im_assets.scoring.cuts import cuts_fingerprint
    from im_assets.scoring.registry import chosen
    from im_resources.deployment.making import warehouse_of
    from im_resources.gpu import GpuResource
    from im_resources.language_model.cuts import COUNTS, LENGTH
    from im_resources.spooled import Scratch, Spooled, write_table

    warehouse, models = warehouse_of(study), Models.of(study, GpuResource(device="cpu"))
    indicators = [i for i in chosen(study.scoring) if i.backend.scope == "example"]
    embedding = models.fingerprint("embedding")
    keys = {i.name: i.fingerprint(models) for i in indicators}
    draw, scratch = np.random.Generator(np.random.PCG64(2)), Scratch(study.folder / "scratch")
    ids = warehouse.spooled(
        scratch.folder / "ids", "SELECT example_id FROM dolly_dataset", rows=5 * BLOCK
    )
    files: dict[str, list[Path]] = {"score_cache": [], "cut_cache": [], "embedding_cache": []}
    for place, part in enumerate(ids.tables()):
        own, count = part["example_id"], len(part)
        scores = [
            pa.table(
                {"example_id": own, "indicator": [i.name] * count,
                 "backend": [i.backend.name] * count, "fingerprint": [keys[i.name]] * count,
                 "value": draw.gamma(2.0, size=count)}
            ) for i in indicators
        ]  # fmt: skip
        cuts = {name: np.ones(count, dtype=np.int64) for name in (*COUNTS, LENGTH)}
        vectors = draw.standard_normal((count, 8), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        offsets = pa.array(np.arange(0, vectors.size + 1, 8), pa.int32())
        made = {
            "score_cache": pa.concat_tables(scores),
            "cut_cache": pa.table(
                {"example_id": own, "fingerprint": [cuts_fingerprint(models)] * count} | cuts
            ),
            "embedding_cache": pa.table(
                {"example_id": own, "fingerprint": [embedding] * count,
                 "embedding": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))}
            ),
        }  # fmt: skip
        for name, table in made.items():
            path = scratch.folder / f"{name}-{place:05}.parquet"
            files[name].append(write_table(table, path))
    for name, paths in files.items():
        warehouse.replace_from(name, Spooled(tuple(paths), 0, scratch))


if __name__ == "__main__":
    main()
