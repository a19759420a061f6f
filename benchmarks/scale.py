"""CPU seconds and peak memory of the stages that hold a whole pool, against its rows.

``python -m benchmarks.scale [--rows 100000 300000 1000000] [--stages …] [--home DIR]``

The rows are synthetic, distinct, about 450 bytes each, and drawn by a seed: cleaning reads them as
JSONL; the other stages find a pool of them in a warehouse, with every score and embedding in the
caches, so that no model runs. A stage is the materialization of an asset of the real definitions,
by Dagster, in a process of its own: its seconds are those of user and system between the start of
the run and its end, its peak that of the whole process with its imports.

stage        asset
cleaning     candidate_datasets, of four sources, against an evaluation set of 300 rows
seeds        mixture_seeds
mixtures     mixed_samples: 78 mixtures of 2000
scores       dolly_scores: eight indicators, and KNN-6's embeddings of 768 numbers
indicators   dolly_indicators for published_v2, which reads no KNN
selection    dolly_selection of 1000 by it
knn          dolly_indicators for published_v1, which reads KNN-6

The last lines are the exponents of growth: the slopes of log seconds and log memory against log
rows, by least squares. Memory has a constant part (imports), so that its exponent is below 1.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import yaml

from im_resources.study import PROJECT_ROOT

STAGES = {
    "cleaning": ("candidate_datasets", "fitted"),
    "seeds": ("mixture_seeds", "fitted"),
    "mixtures": ("mixed_samples", "fitted"),
    "scores": ("dolly_scores", "published_v2"),
    "indicators": ("dolly_indicators", "published_v2"),
    "selection": ("dolly_selection", "published_v2"),
    "knn": ("dolly_indicators", "published_v1"),
}
SOURCES = ("one", "two", "three", "four")
WORDS, DIMENSIONS, CLUSTERS, EVALUATION = 50_000, 768, 1000, 300
BLOCK = 20_000  # rows made at once


def main() -> None:
    """Measure the stages at each size; print a line for each, and the exponents."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--home", type=Path, help="folder to work in; default: a temporary one")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(*arguments.one)))
        return
    if arguments.prepare:
        prepare(Path(arguments.prepare[0]), int(arguments.prepare[1]))
        return
    home = (arguments.home or Path(tempfile.mkdtemp(prefix="scale-"))).resolve()
    names = ("duckdb", "pandas", "numpy", "pyarrow")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}, {versions}; in {home}")
    print(f"{'stage':10} {'rows':>9} {'CPU s':>8} {'wall s':>8} {'peak GB':>8}")
    found = []
    for rows in arguments.rows:
        folder = home / str(rows)
        if not (folder / "prepared").exists():
            run(folder, "--prepare", str(folder), str(rows))
        for stage in arguments.stages:
            figures = json.loads(run(folder, "--one", stage, str(folder)).splitlines()[-1])
            found.append({"stage": stage, "rows": rows, **figures})
            print(
                f"{stage:10} {rows:9} {figures['cpu']:8.1f} {figures['wall']:8.1f} "
                f"{figures['peak']:8.2f}   load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    table = pd.DataFrame(found)
    if len(arguments.rows) > 1:
        print("\nexponents of growth (log-log least squares)")
        for stage, part in table.groupby("stage", sort=False):
            slopes = [
                np.polyfit(np.log(part["rows"]), np.log(part[c]), 1)[0] for c in ("cpu", "peak")
            ]
            print(f"{stage:10} seconds {slopes[0]:.2f}   memory {slopes[1]:.2f}")


def run(folder: Path, *arguments: str, module: str = "benchmarks.scale") -> str:
    """The output of a process of a module of benchmarks, with the study's folder as its home."""
    variables = {"IM_HOME": str(folder), "DAGSTER_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command,
        check=False,
        cwd=PROJECT_ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed with {done.returncode}")
    return done.stdout


def measured(stage: str, folder: str) -> dict[str, float]:
    """Materialize the stage's asset in this process: CPU and wall seconds, peak memory in GB."""
    from tests.study import Platform, history

    asset, rule = STAGES[stage]
    with history(Path(folder) / f"history-{stage}") as instance:
        study = Platform(Path(folder) / f"{rule}.yaml", instance)
        if stage in ("indicators", "selection", "knn"):
            _succeeded(study.materialize("quality_rule", checks=False))
        before, start = time.process_time(), time.perf_counter()
        with _peak() as peak:
            result = study.materialize(asset, checks=False)
        wall, cpu = time.perf_counter() - start, time.process_time() - before
    _succeeded(result)
    return {"cpu": cpu, "wall": wall, "peak": peak[0]}


@contextmanager
def _peak() -> Iterator[list[float]]:
    """The most memory that this process holds meanwhile, in GB, looked at 50 times a second."""
    process, most, ended = psutil.Process(), [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            most[0] = max(most[0], process.memory_info().rss / 1e9)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield most
    ended.set()
    thread.join()


def _succeeded(result: Any) -> None:
    for event in result.filter_events(lambda event: event.is_step_failure):
        sys.exit(f"{event.step_key}: {event.event_specific_data.error_display_string}")


def prepare(folder: Path, rows: int) -> None:
    """Write the files and the profiles of a pool of ``rows``, and a warehouse that holds it."""
    from im_resources.study import load_study
    from tests.study import Platform, history

    write_profiles(folder)
    write_files(folder / "data", rows)
    study = load_study(str(folder / "published_v2.yaml"))
    fill(study, folder / "data", rows)
    with history(folder / "history") as instance:
        platform_ = Platform(folder / "fitted.yaml", instance)
        for asset in ("eval_set", "mixture_seeds"):
            _succeeded(platform_.materialize(asset, checks=False))
    (folder / "prepared").touch()


def write_profiles(folder: Path) -> None:
    """One profile a rule; they share a warehouse."""
    data = folder / "data"
    demo = yaml.safe_load((PROJECT_ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    common: dict[str, Any] = {
        "name": "scale",
        "models": {**demo["models"], "precision": "fp32"},
        "scoring": {"indicators": demo["scoring"]["indicators"]},
        "mixtures": {"seeds": 78, "size": 2000},
        "selection": {"size": 1000},
    }
    pool = {"path": str(data / "one.jsonl")}
    evaluation = {"path": str(data / "evaluation.jsonl"), "outputs": "outputs"}
    candidates = {name: {"path": str(data / f"{name}.jsonl")} for name in SOURCES}
    for rule in sorted({rule for _, rule in STAGES.values()}):
        own = {"rule": {"source": rule}, "data": {"unseen": pool, "evaluation": evaluation}}
        if rule == "fitted":
            own["data"] |= {"candidates": candidates}
        text = yaml.safe_dump(common | own)
        (folder / f"{rule}.yaml").write_text(text, encoding="utf-8")


def texts(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Instruction and output of distinct rows, together about 400 characters of words with the
    frequencies of a language (Zipf)."""
    draw = np.random.Generator(np.random.PCG64(seed))
    parts = ["ba", "co", "di", "fu", "ge", "ha", "ki", "lo", "mu", "ne", "pa", "ri", "so", "ta"]
    lengths = draw.integers(1, 5, WORDS)
    words = np.array(["".join(draw.choice(parts, n)) for n in lengths], dtype=object)
    frequency = 1 / np.arange(1, WORDS + 1)
    cumulated = np.cumsum(frequency / frequency.sum())
    for start in range(0, count, BLOCK):
        rows = min(BLOCK, count - start)
        drawn = words[
            np.searchsorted(cumulated, draw.random((rows, 72)), "right").clip(0, WORDS - 1)
        ]
        for number, row in enumerate(drawn, start):
            yield f"{' '.join(row[:14])} {number}?", " ".join(row[14:])


def write_files(data: Path, rows: int) -> None:
    """Candidates in four files of equal size, and an evaluation set of other texts."""
    data.mkdir(exist_ok=True)
    part = -(-rows // len(SOURCES))
    found = texts(rows, seed=0)
    for name in SOURCES:
        with (data / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for _, (asked, said) in zip(range(part), found, strict=False):
                file.write(json.dumps({"instruction": asked, "input": "", "output": said}) + "\n")
    lines = [{"instruction": asked, "outputs": [said]} for asked, said in texts(EVALUATION, seed=1)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (data / "evaluation.jsonl").write_text(text, encoding="utf-8")


def fill(study: Any, data: Path, rows: int) -> None:
    """The tables and caches that the stages find, as if cleaning and scoring had been run."""
    import duckdb
    import pyarrow as pa

    from im_assets.candidates.content import example_id
    from im_assets.scoring.batch import Models
    from im_assets.scoring.cuts import cuts_fingerprint
    from im_assets.scoring.registry import chosen
    from im_resources.gpu import GpuResource
    from im_resources.language_model.cuts import COUNTS, LENGTH
    from im_resources.warehouse import Warehouse

    warehouse, models = Warehouse(study.warehouse), Models.of(study, GpuResource(device="cpu"))
    draw = np.random.Generator(np.random.PCG64(2))
    centres = draw.standard_normal((CLUSTERS, DIMENSIONS), dtype=np.float32)
    lines = (line for name in SOURCES for line in (data / f"{name}.jsonl").open(encoding="utf-8"))
    indicators = [i for i in chosen(study.scoring) if i.backend.scope == "example"]
    keys = {i.name: i.fingerprint(models) for i in indicators}
    part = -(-rows // len(SOURCES))
    made = 0
    warehouse.execute("SELECT 1")  # makes the file
    with duckdb.connect(str(warehouse.path)) as connection:
        while batch := [json.loads(line) for _, line in zip(range(BLOCK), lines, strict=False)]:
            numbers = np.arange(made, made + len(batch))
            asked, said = ([row[c] for row in batch] for c in ("instruction", "output"))
            ids = [example_id(a, "", s) for a, s in zip(asked, said, strict=True)]
            sources = [SOURCES[number // part] for number in numbers]
            examples = pa.table(
                {"example_id": ids, "source": sources, "line": numbers % part + 1,
                 "instruction": asked, "input": [""] * len(batch), "output": said,
                 "category": [""] * len(batch), "file": [f"{s}.jsonl" for s in sources],
                 "own_id": pa.nulls(len(batch), pa.string()),
                 "language": ["en"] * len(batch), "language_confidence": draw.random(len(batch))}
            )  # fmt: skip
            cluster = draw.integers(CLUSTERS, size=len(batch))
            vectors = draw.standard_normal((len(batch), DIMENSIONS), dtype=np.float32)
            vectors += centres[cluster]
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            offsets = pa.array(np.arange(0, vectors.size + 1, DIMENSIONS), pa.int32())
            embeddings = pa.table(
                {"example_id": ids,
                 "fingerprint": [models.fingerprint("embedding")] * len(batch),
                 "embedding": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))}
            )  # fmt: skip
            scores = pa.concat_tables(
                pa.table(
                    {"example_id": ids, "indicator": [i.name] * len(batch),
                     "backend": [i.backend.name] * len(batch),
                     "fingerprint": [keys[i.name]] * len(batch),
                     "value": draw.gamma(2.0, size=len(batch))}
                ) for i in indicators
            )  # fmt: skip
            cuts = pa.table(
                {"example_id": ids, "fingerprint": [cuts_fingerprint(models)] * len(batch)}
                | {name: np.ones(len(batch), dtype=np.int64) for name in (*COUNTS, LENGTH)}
            )
            tables = {"dolly_dataset": examples, "embedding_cache": embeddings,
                      "score_cache": scores, "cut_cache": cuts}  # fmt: skip
            for name, table in tables.items():
                connection.register("rows", table)
                verb = "INSERT INTO" if made else "CREATE TABLE"
                link = "" if made else " AS"
                connection.execute(f"{verb} {name}{link} SELECT * FROM rows")
            made += len(batch)
        connection.execute(
            "CREATE TABLE candidate_datasets AS SELECT *, 1::BIGINT AS since_version "
            "FROM dolly_dataset"
        )
        connection.execute(
            "CREATE TABLE candidate_history AS SELECT example_id, source, 1::BIGINT AS "
            "since_version, NULL::BIGINT AS until_version FROM dolly_dataset"
        )
        where = " OR ".join(
            f"(indicator = '{name}' AND fingerprint = '{key}')" for name, key in keys.items()
        )
        connection.execute(
            f"CREATE TABLE dolly_scores AS SELECT * FROM score_cache WHERE {where} "
            "ORDER BY example_id, indicator, fingerprint"
        )


if __name__ == "__main__":
    main()
