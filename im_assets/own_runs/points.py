"""Finished runs as the points of a rule: mean indicators of their examples, and what was measured.

A run's set is a mixture that somebody else trained on, and its point is one of those of mixtures:
what reads points need not know who made the finetune. What it was made with is not known, and so is
the same for all of one file.
"""

from collections.abc import Sequence

import pandas as pd

from im_assets.experiments.lineage import set_id_of
from im_assets.experiments.measures import measured
from im_assets.experiments.points import Sets, indicators_of, values_fingerprint
from im_assets.own_runs import RUNS
from im_assets.own_runs.reading import RUN, Run
from im_assets.rule.ready import transform_of
from im_assets.rule.target import Target, target_measure
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import Indicator
from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse

MIXTURES = "mixtures"  # the experiment that their points stand for
ELSEWHERE = "elsewhere"  # the settings, base and evaluation set of runs that we did not make


def members_table(runs: Sequence[Run], source_of: pd.Series, measure: str) -> pd.DataFrame:
    """One row a member: run, position, example_id, source, set_id, and the run's ``measure``.

    Args:
        source_of: the source of each example of the pool, by its id.
    """
    parts = [
        pd.DataFrame(
            {
                RUN: run.name,
                "position": range(len(run.members)),
                "example_id": run.members,
                "set_id": set_id_of(run.members),
                measure: run.value,
            }
        )
        for run in runs
    ]
    table = pd.concat(parts, ignore_index=True)
    table.insert(3, "source", table["example_id"].map(source_of))
    return table.astype(dict.fromkeys((RUN, "example_id", "source", "set_id"), "string"))


def points_of_runs(
    members: pd.DataFrame,
    indicators: Sequence[Indicator],
    study: Study,
    models: Models,
    warehouse: Warehouse,
) -> pd.DataFrame:
    """One row a run, in the order of the file, with the columns of every table of points that are
    known of it.

    Args:
        members: as `members_table` gives them; they are in the warehouse too.

    Returns:
        experiment, partition (the run's name), n_examples, largest_source, the indicators, their
        ``transform``, the measure, the rule's target, and the fingerprints.

    Raises LineageError when a member lacks a score; SetTooSmall for a run of too few examples.
    """
    sets = Sets("finished runs", RUN, members, RUNS, "example_scores")
    table = indicators_of(sets, indicators, transform_of(study), models, warehouse)
    table.insert(0, "experiment", MIXTURES)
    target, measure = Target.of(study), target_measure(study)
    table[measure.name] = pd.Series(measured(measure, members, RUN), dtype="float64")
    table[target.column] = target.transform(table[measure.name].to_numpy())
    table["values_id"] = values_fingerprint(indicators, study, models)
    table["set_id"] = members.groupby(RUN)["set_id"].first()
    # Not of the value: one that is corrected makes no new finetune.
    table["trial_id"] = [
        fingerprint("run", name, of) for name, of in zip(table.index, table["set_id"], strict=True)
    ]
    table = table.assign(settings_id=ELSEWHERE, base_id=ELSEWHERE, evaluation_id=ELSEWHERE)
    table = table.reindex(members[RUN].drop_duplicates().astype(str))
    table = table.rename_axis("partition").reset_index()
    return table[["experiment", "partition", *table.columns.drop(["experiment", "partition"])]]
