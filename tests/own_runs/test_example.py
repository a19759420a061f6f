"""The committed example: the demo's own finetunes as a file of runs.

Nothing is finetuned or scored by a model here: what the example adds to the demo is the file.
"""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from im_assets.candidates.cleaning import clean
from im_assets.candidates.reading import read_source
from im_assets.candidates.references import references
from im_assets.mixtures.drawing import draw_mixtures
from im_assets.own_runs.reading import OwnRuns, read_runs
from im_assets.rule.target import Target
from im_resources.study import load_study, resolve_path


@pytest.fixture(scope="module")
def demo_mixtures() -> dict[str, list[str]]:
    """The examples of the demo's mixtures, drawn again."""
    demo = load_study("demo")
    assert demo.data.evaluation is not None
    read = [read_source(name, source) for name, source in demo.data.candidates.items()]
    rows, rejected = (pd.concat(parts, ignore_index=True) for parts in zip(*read, strict=True))
    evaluated, _ = references(*read_source("evaluation", demo.data.evaluation, verifiable=True))
    pool, _ = clean(rows, rejected, demo.cleaning, evaluated)
    drawn = draw_mixtures(
        pool[["example_id", "source"]], demo.mixtures.seed_numbers, demo.mixtures.size
    )
    return {f"seed-{seed:03d}": members["example_id"].tolist() for seed, members in drawn}


def runs(pool: set[str]) -> OwnRuns:
    study = load_study("own_runs")
    assert study.runs is not None
    return read_runs(study.runs, Target.of(study), pool)


def test_its_runs_are_the_demos_mixtures(demo_mixtures: dict[str, list[str]]) -> None:
    pool = {one for members in demo_mixtures.values() for one in members}
    found = {run.name: list(run.members) for run in runs(pool).runs}
    assert found == demo_mixtures


def test_its_losses_are_those_of_the_file(demo_mixtures: dict[str, list[str]]) -> None:
    pool = {one for members in demo_mixtures.values() for one in members}
    path = Path(resolve_path("sample_data/runs.csv"))
    with path.open(encoding="utf-8", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert [run.value for run in runs(pool).runs] == losses
    assert 0.02 < np.std(np.log(losses)) < 0.1  # of finetunes that differ, by little
