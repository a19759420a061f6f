"""What the rounds measured: the points of each, and how far its rule was off on them."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from im_assets.experiments.experiment import Experiment
from im_assets.experiments.holdout import split_of
from im_assets.experiments.lineage import LineageError
from im_assets.experiments.points import Parts, points_of
from im_assets.rounds.errors import Errors
from im_assets.rounds.experiment import arms_of, rule_name
from im_assets.rule.document import load_rule
from im_assets.rule.model import Rule
from im_assets.rule.target import Target
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse


@dataclass(frozen=True)
class Round:
    """A round that was made, or stopped.

    Attributes:
        points: one row a set (see ``points_of``), with its ``strategy``; none where it was stopped.
        parts: the tables of the sets.
    """

    number: int
    rule: Rule
    points: pd.DataFrame
    parts: Parts

    @property
    def errors(self) -> Errors | None:
        """Measured less predicted target; None where the round was stopped."""
        if self.points.empty:
            return None
        measured = self.points[self.rule.predicts.column].to_numpy(dtype=float)
        predicted = self.rule.predict_points(self.points)
        return Errors(measured - predicted, self.points["strategy"].to_numpy(dtype=str))


def whole_points(
    experiment: Experiment,
    tables: Mapping[str, pd.DataFrame],
    study: Study,
    gpu: GpuResource,
    warehouse: Warehouse,
) -> tuple[pd.DataFrame, Parts]:
    """The points of an experiment of which nothing may be missing, on what rules are fitted on; and
    its parts, on all instructions.

    Raises LineageError when a set is missing, or its parts do not belong together.
    """
    parts = Parts.of(experiment, tables)
    good = parts.whole(parts.faults(tables["eval_set"], study, gpu))
    fitting = good.on(split_of(tables["eval_set"], study.evaluation).fitting)
    indicators, models = chosen(study.scoring), Models.of(study, gpu)
    return points_of(fitting, indicators, study, models, warehouse), good


def measured_round(
    number: int,
    experiment: Experiment,
    tables: Mapping[str, pd.DataFrame],
    study: Study,
    gpu: GpuResource,
    warehouse: Warehouse,
) -> Round:
    """A round as its tables say.

    Raises LineageError as ``whole_points`` does, and when its sets were drawn by another rule than
    the round's: what that one predicted for them says nothing of this one where it selects.
    """
    rule = load_rule(tables[rule_name(number)])
    if rule.predicts != Target.of(study):
        raise LineageError(
            f"{rule_name(number)} predicts the {rule.predicts.label}, and rule.target asks for the "
            f"{Target.of(study).label}; materialize {rule_name(number)}, and what follows"
        )
    points, parts = whole_points(experiment, tables, study, gpu, warehouse)
    drawn_by = set(parts.samples["rule_id"].astype(str))
    if drawn_by - {rule.id}:
        raise LineageError(
            f"the {experiment.noun} were drawn by another rule than {rule_name(number)} holds now; "
            f"materialize {experiment.samples} for all of them, and what follows"
        )
    arms = arms_of(study, number)
    strategies = [arms[str(key)].name for key in points["partition"]]
    return Round(number, rule, points.assign(strategy=strategies), parts)
