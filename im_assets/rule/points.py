"""Which points the rule is fitted on: those of the experiments that ``rule.points`` names.

Selections that were measured are points too, but they were drawn by a rule: an asset that read them
and led to the rule would depend on itself. So ``measured_selections`` keeps what the validations of
earlier rules left in the warehouse. It is the one place where the study's circle is closed, and the
only asset that reads tables which it does not depend on.
"""

from collections.abc import Mapping

import pandas as pd

from im_assets.experiments.evaluation import evaluation_fingerprint, evaluation_rows
from im_assets.experiments.experiment import some
from im_assets.experiments.finetuning import training_settings_id
from im_assets.experiments.holdout import split_of
from im_assets.experiments.lineage import LineageError
from im_assets.experiments.measures import rows_read
from im_assets.experiments.points import (
    Parts,
    instructions_id_of,
    points_of,
    values_fingerprint,
)
from im_assets.rule.point_experiments import point_experiments
from im_assets.rule.ready import transform_of
from im_assets.rule.target import Target
from im_assets.rule.transform import COLUMN as TRANSFORM
from im_assets.rule.transform import scale_of
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_assets.validation.experiment import validation_experiment
from im_resources.gpu import GpuResource
from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse

MEASURED = "measured_selections"


def require_points(points: pd.DataFrame, study: Study, told_by: Mapping[str, pd.DataFrame]) -> None:
    """Refuse a table that lacks a trial, or was made before the profile changed: a rule on some of
    the mixtures, or on finetunes with other settings, is another rule.

    Args:
        told_by: the tables that say which partition keys the experiments have now.

    Raises LineageError with what is missing, or what changed, and what to materialize.
    """
    for named in point_experiments(study):
        experiment = named.now(told_by)
        mine = points.loc[points["experiment"] == experiment.name, "partition"]
        if missing := [key for key in experiment.keys if key not in set(mine)]:
            raise LineageError(
                f"indicator_table lacks {len(missing)} of {len(experiment.keys)} "
                f"{experiment.noun} ({some(missing)}): see its check "
                f"{experiment.name}_parts_agree for what to materialize"
            )
    if (points["settings_id"] != training_settings_id(study)).any():
        raise LineageError(
            "indicator_table holds finetunes with other settings than the profile's; materialize "
            "finetuned_adapters, and what follows"
        )
    require_scale(points, study)
    if (points["loss"] != points[f"{study.evaluation.weighting}_loss"]).any():
        raise LineageError(
            "indicator_table was made with another evaluation.weighting; materialize it again"
        )


def require_scale(points: pd.DataFrame, study: Study) -> None:
    """Refuse a table whose indicators are on another scale than the rule's.

    Raises LineageError with both, and what to materialize.
    """
    if (found := scale_of(points)) != (wanted := transform_of(study)):
        raise LineageError(
            f"indicator_table holds indicators on the scale {found}, and the rule's is {wanted} "
            "(rule.transform); materialize indicator_table again"
        )


def still_valid(
    points: pd.DataFrame, study: Study, gpu: GpuResource, eval_set: pd.DataFrame
) -> pd.DataFrame:
    """The earlier points that were made as the profile says now: settings, base, evaluation, and
    versions of the indicators and measures."""
    if points.empty:
        return points
    rows = evaluation_rows(eval_set, study.evaluation)
    answered, column = instructions_id_of(study, eval_set), Target.of(study).column
    wanted = [column, *(f"{kind}_id" for kind in rows_read(study)), "values_id"]
    if not set(wanted) <= set(points.columns):
        return points[:0]
    for name in wanted[1:-1]:
        points = points[points[name] == answered]
    values = values_fingerprint(chosen(study.scoring), study, Models.of(study, gpu))
    points = points[points["values_id"] == values]
    weights = gpu.base_weights(study)
    bases = [fingerprint(weights, precision) for precision in ("fp32", "bf16", "int8", "nf4")]
    return points[
        (points["settings_id"] == training_settings_id(study))
        & (points["evaluation_id"] == evaluation_fingerprint(rows, study))
        & points["base_id"].isin(bases)
        & points[column].notna()
    ]


def selections_measured(study: Study, gpu: GpuResource, warehouse: Warehouse) -> pd.DataFrame:
    """The measured selections as points: those kept before, and those of the last validation.

    A trial stays once it is here; whether it still counts is decided by `still_valid`. Whatever
    drew it, a set that was measured is a point.
    """
    experiment = validation_experiment(study)
    kept = _kept(study, warehouse)
    names = (*Parts.names(experiment), experiment.scores)
    if not all(warehouse.has_table(name) for name in names):
        return kept
    tables = {name: warehouse.read_table(name) for name in names}
    parts = Parts.of(experiment, tables)
    good = parts.without(parts.faults(tables["eval_set"], study, gpu, any_set=True))
    good = good.on(split_of(tables["eval_set"], study.evaluation).fitting)
    new = points_of(good, chosen(study.scoring), study, Models.of(study, gpu), warehouse)
    if new.empty:
        return kept
    rules = new["partition"].map(good.samples.groupby(experiment.column)["rule_id"].first())
    new = new.assign(partition=new["partition"] + "@" + rules.str[:8])
    both = [kept, new] if len(kept) else [new]
    return pd.concat(both, ignore_index=True).drop_duplicates(
        "trial_id",
        keep="last",
        ignore_index=True,  # of a trial whose values were made again, the new ones
    )


def _kept(study: Study, warehouse: Warehouse) -> pd.DataFrame:
    """What is here already, where it has the profile's indicators."""
    empty = pd.DataFrame({"experiment": pd.Series(dtype="string")})
    if not warehouse.has_table(MEASURED):
        return empty
    rows = warehouse.read_table(MEASURED)
    if TRANSFORM not in rows:  # kept when every indicator was as it is
        rows[TRANSFORM] = "none"
    return rows if set(study.scoring.indicators) <= set(rows.columns) else empty
