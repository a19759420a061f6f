"""The series of mixture seeds as it is to be: what the asset makes, and what a plan counts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from im_assets.candidates.versions import HISTORY, held_in
from im_assets.experiments.experiment import Experiment
from im_assets.mixtures.design import expected_indicators, source_means
from im_assets.mixtures.experiment import SERIES, mixture_experiment
from im_assets.mixtures.leaning import (
    ScoredPool,
    kept_percentiles,
    scored_pool,
    tilt_of,
    tilted_indicators,
)
from im_assets.mixtures.series import Expect, designed, next_series, with_new_seeds
from im_assets.mixtures.tilting import VERSION
from im_assets.rule.ready import transform_of
from im_assets.scoring.batch import Models
from im_resources.study import Study
from im_resources.warehouse import Warehouse


@dataclass(frozen=True)
class Grown:
    """The series for the pool as it is now.

    Attributes:
        new: how many of its seeds are new.
        unscored: sources of which nothing is scored, where that mattered.
        percentiles: of tilted mixtures (see leaning); None for random ones.
    """

    series: pd.DataFrame
    new: int
    unscored: Sequence[str] = ()
    percentiles: pd.DataFrame | None = None


def grown_series(study: Study, warehouse: Warehouse, pool: pd.DataFrame, models: Models) -> Grown:
    """The series for the pool as it is now.

    Args:
        pool: the candidates, columns example_id and source; its history is in the warehouse, and
            their scores where there are some.

    Raises LineageError when tilted mixtures lack scores.
    """
    experiment, settings = mixture_experiment(study), study.mixtures
    history = warehouse.read_table(HISTORY)
    previous = warehouse.read_table(SERIES) if warehouse.has_table(SERIES) else None
    paid = _paid(experiment, study, warehouse)
    series, count = next_series(previous, experiment.keys, paid, history, study.refit.new_seeds)
    if settings.kind == "random":
        expect: Expect | None = None
        unscored: list[str] = []
        if count and warehouse.has_table(experiment.scores):
            expect, unscored = _of_random(study, warehouse, history, pool)
        series = with_new_seeds(series, count, history, expect, settings.candidate_seeds)
        return Grown(series.assign(tilt=None), count, unscored)
    scores = warehouse.read_table(experiment.scores)
    kept = kept_percentiles(study, warehouse, history, scores, models)
    expect = _of_tilted(study, history, scores, kept)
    if settings.kind == "designed":
        series = designed(
            series, set(experiment.keys) - set(paid), expect, settings.candidate_seeds
        )
    series = with_new_seeds(series, count, history, expect, settings.candidate_seeds)
    names = tilted_indicators(study)
    tilts = [tilt_of(int(number), names, settings) for number in series["number"]]
    return Grown(series.assign(tilt=list(map(json.dumps, tilts))), count, (), kept)


def _of_random(
    study: Study, warehouse: Warehouse, history: pd.DataFrame, pool: pd.DataFrame
) -> tuple[Expect, list[str]]:
    """What random mixtures are expected to be, and the sources of which nothing is scored."""
    sources = sorted(set(history["source"].astype(str)))
    scores = warehouse.read_table("example_scores")
    means, unscored = source_means(scores, pool, sources)

    def expect(version: int, numbers: Sequence[int]) -> pd.DataFrame:
        return expected_indicators(
            _held(history, version), means, numbers, study.mixtures.size, study.mixtures.shares
        )

    return expect, unscored


def _of_tilted(
    study: Study, history: pd.DataFrame, scores: pd.DataFrame, kept: pd.DataFrame
) -> Expect:
    """What tilted mixtures are expected to be."""
    names, settings, pools = tilted_indicators(study), study.mixtures, dict[int, ScoredPool]()

    def expect(version: int, numbers: Sequence[int]) -> pd.DataFrame:
        if version not in pools:
            of_version = kept[kept[VERSION] == version]
            held = held_in(history, version)
            pools[version] = scored_pool(held, scores, of_version, transform_of(study))
        tilts = {number: tilt_of(number, names, settings) for number in numbers}
        means = pools[version].expected(tilts)
        return expected_indicators(
            _held(history, version), means, numbers, settings.size, settings.shares
        )

    return expect


def _held(history: pd.DataFrame, version: int) -> dict[str, int]:
    counts = held_in(history, version)["source"].value_counts()
    return {str(source): int(count) for source, count in counts.items()}


def _paid(experiment: Experiment, study: Study, warehouse: Warehouse) -> dict[str, set[str]]:
    """The seeds whose mixtures were drawn as the profile says, and finetuned on, with the members
    of these."""
    tables = {}
    for name, columns in (
        (experiment.samples, [experiment.column, "set_id", "drawing_id", "example_id"]),
        (experiment.adapters, [experiment.column, "set_id"]),
    ):
        if not warehouse.has_table(name):
            return {}
        rows = warehouse.read_table(name)
        if not set(columns) <= set(rows.columns):  # made before there were fingerprints
            return {}
        tables[name] = rows[columns].drop_duplicates()
    drawn = tables[experiment.samples]
    drawn = drawn[drawn["drawing_id"] == experiment.drawing_id(study)]
    both = drawn.merge(tables[experiment.adapters], on=[experiment.column, "set_id"])
    return {str(k): set(ids) for k, ids in both.groupby(experiment.column)["example_id"]}
