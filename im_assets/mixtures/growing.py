"""The series of mixture seeds as it is to be: what the asset makes, and what a plan counts."""

import pandas as pd

from im_assets.candidates.versions import HISTORY
from im_assets.experiments.experiment import Experiment
from im_assets.mixtures.design import source_means
from im_assets.mixtures.experiment import SERIES, mixture_experiment
from im_assets.mixtures.series import next_series, with_new_seeds
from im_resources.study import Study
from im_resources.warehouse import Warehouse


def grown_series(
    study: Study, warehouse: Warehouse, pool: pd.DataFrame
) -> tuple[pd.DataFrame, int, list[str]]:
    """The series for the pool as it is now.

    Args:
        pool: the candidates, columns example_id and source; its history is in the warehouse.

    Returns: the series, how many of its seeds are new, and the sources of which nothing is scored
        where that mattered.
    """
    experiment = mixture_experiment(study)
    history = warehouse.read_table(HISTORY)
    previous = warehouse.read_table(SERIES) if warehouse.has_table(SERIES) else None
    size = study.mixtures.size
    series, count = next_series(
        previous,
        experiment.keys,
        _paid(experiment, study, warehouse),
        history,
        size,
        study.refit.new_seeds,
        study.mixtures.shares,
    )
    unscored: list[str] = []
    if count:
        means = None
        if warehouse.has_table(experiment.scores):
            sources = sorted(set(history["source"].astype(str)))
            scores = warehouse.read_table(experiment.scores)
            means, unscored = source_means(scores, pool, sources)
        looked_at, shares = study.mixtures.candidate_seeds, study.mixtures.shares
        series = with_new_seeds(series, count, history, means, size, looked_at, shares)
    return series, count, unscored


def _paid(experiment: Experiment, study: Study, warehouse: Warehouse) -> set[str]:
    """The seeds whose mixtures were drawn as the profile says, and finetuned on."""
    tables = {}
    for name, columns in (
        (experiment.samples, [experiment.column, "set_id", "drawing_id"]),
        (experiment.adapters, [experiment.column, "set_id"]),
    ):
        if not warehouse.has_table(name):
            return set()
        rows = warehouse.read_table(name)
        if not set(columns) <= set(rows.columns):  # made before there were fingerprints
            return set()
        tables[name] = rows[columns].drop_duplicates()
    drawn = tables[experiment.samples]
    drawn = drawn[drawn["drawing_id"] == experiment.drawing_id(study)]
    both = drawn.merge(tables[experiment.adapters], on=[experiment.column, "set_id"])
    return set(both[experiment.column].astype(str))
