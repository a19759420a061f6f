"""Finished runs of somebody's own, in small: a pool, the files that they were trained on, a CSV."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from im_assets.candidates.content import example_id

WORDS = [a + b for a in ("ri", "sto", "ap", "win", "mu") for b in ("ver", "ne", "ple", "dow")]
RUNS = 14


def pool_rows(seed: int, count: int, variety: int) -> list[dict[str, Any]]:
    """Rows whose answers use so many different words, each with a number of its own."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return [
        {
            "instruction": f"Tell me about {seed} and {i}.",
            "output": " ".join(rng.choice(WORDS[:variety], 60)),
            "rating": round(float(rng.normal(5, 2)), 3),
        }
        for i in range(count)
    ]


def id_of(row: Mapping[str, Any]) -> str:
    return example_id(row["instruction"], "", row["output"])


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_runs(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def finished(folder: Path) -> list[dict[str, Any]]:
    """The rows of a CSV: runs of 5 to 11 of 90 examples, half of them by files of their own."""
    sources = {"plain": pool_rows(0, 30, 4), "varied": pool_rows(1, 30, 20)}
    sources["middle"] = pool_rows(2, 30, 9)
    for name, rows in sources.items():
        write_rows(folder / f"{name}.jsonl", rows)
    (folder / "trained").mkdir()
    rng, table = np.random.Generator(np.random.PCG64(7)), []
    every = [row for rows in sources.values() for row in rows]
    for number in range(RUNS):
        weights = np.repeat(rng.dirichlet(np.ones(3)), 30) / 30
        picked = rng.choice(len(every), 5 + number % 7, replace=False, p=weights)
        rows = [every[place] for place in picked]
        rating = float(np.mean([row["rating"] for row in rows]))
        run = {"run": f"mine {number}", "loss": round(2 - 0.05 * rating + rng.normal(0, 0.004), 6)}
        if number % 2:
            # The row as a trainer wrote it: other fields, other white space, the same text.
            written = [
                {"instruction": f" {r['instruction']} ", "output": r["output"] + "\n"} for r in rows
            ]
            write_rows(folder / "trained" / f"{number}.jsonl", written)
            table.append(run | {"file": f"trained/{number}.jsonl", "note": "by a file"})
        else:
            table.append(run | {"examples": " ".join(map(id_of, rows)), "note": "by ids"})
    return table


def write_study(folder: Path, rows: Sequence[Mapping[str, Any]], **blocks: Any) -> Path:
    """A profile of such runs, which needs no model at all."""
    unseen = [row | {"response": row["output"], "context": ""} for row in pool_rows(9, 40, 14)]
    write_rows(folder / "unseen.jsonl", unseen)
    write_runs(folder / "runs.csv", rows)
    names = ("plain", "varied", "middle")
    profile: dict[str, Any] = {
        "name": "mine",
        "label": "test-scale",
        "data": {
            "candidates": {name: {"path": str(folder / f"{name}.jsonl")} for name in names},
            "unseen": {"path": str(folder / "unseen.jsonl"), "format": "dolly"},
        },
        "models": {},
        "runs": {"path": str(folder / "runs.csv")},
        "scoring": {
            "indicators": {
                "mtld": "mtld",
                "rating": {"backend": "precomputed", "options": {"column": "rating"}},
            }
        },
        "rule": {"bootstrap": 10, "permutations": 40, "max_indicators": 1},
        "selection": {"size": 6, "when_chance": "select"},
    }
    for block, value in blocks.items():
        old = profile.get(block)
        both = isinstance(value, dict) and isinstance(old, dict)
        profile[block] = {**old, **value} if both else value  # type: ignore[dict-item]
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return path
