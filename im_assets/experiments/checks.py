"""Checks of an experiment: whether a run will leave trials out, said before it trains; and what
blocks: losses are numbers, and the parts of every trial belong together."""

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.experiments.experiment import Experiment
from im_assets.experiments.holdout import HoldoutError, split_of
from im_assets.experiments.lineage import Fault, LineageError, told
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse


@dg.asset_check(
    asset="eval_set",
    blocking=True,
    description="Either part of the evaluation set, that which rules are fitted on and that which "
    "is held out of every fit, has instructions enough",
)
def holdout_leaves_enough(
    eval_set: pd.DataFrame, study: dg.ResourceParam[Study]
) -> dg.AssetCheckResult:
    """Fails when `evaluation.holdout` leaves a part with too few instructions, before anything is
    finetuned."""
    try:
        split = split_of(eval_set, study.evaluation)
    except HoldoutError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    counts = {str(part.name): len(part.eval_ids) for part in (split.fitting, split.reported)}
    return dg.AssetCheckResult(
        passed=True, description=f"reported on {split.reported.words}", metadata={**counts}
    )


def completeness_spec(experiment: Experiment) -> dg.AssetCheckSpec:
    """The check ``<experiment>_will_be_complete`` of the samples, which `completeness` makes."""
    return dg.AssetCheckSpec(
        f"{experiment.name}_will_be_complete",
        asset=experiment.samples,
        description=f"After this run all {experiment.noun} have losses that still hold: a warning, "
        "given before anything is trained. What needs all of them is not made until they are.",
    )


def completeness(
    context: dg.AssetExecutionContext,
    experiment: Experiment,
    study: Study,
    gpu: GpuResource,
    warehouse: Warehouse,
) -> dg.AssetCheckResult:
    """What this run leaves out: the partitions without losses, or with those of earlier settings.

    Said in the catalog and in the run's log. The experiment is as it is now.
    """
    evaluates = dg.AssetKey(experiment.losses) in context.job_def.asset_layer.selected_asset_keys
    made = set(context.partition_keys) if evaluates else set()
    faults = [f for f in _faults(experiment, study, gpu, warehouse) if f.partition not in made]
    total, noun = len(experiment.keys), experiment.noun
    text = f"all {total} {noun} have losses after this run"
    if faults:
        left = "; ".join(told(faults, total))
        text = (
            f"this run leaves out {len(faults)} of {total} {noun}, and what needs all of them "
            f"(a rule, a verdict) is not made until they are there. {left}"
        )
        context.log.warning(text)
    return dg.AssetCheckResult(
        check_name=completeness_spec(experiment).name,
        passed=not faults,
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
        metadata={"partitions": total, "left out": len(faults)},
    )


def _faults(
    experiment: Experiment, study: Study, gpu: GpuResource, warehouse: Warehouse
) -> list[Fault]:
    """Why partitions have no losses that hold, as the warehouse is before the run."""
    from im_assets.experiments.points import Parts

    names = Parts.names(experiment)
    if not all(warehouse.has_table(name) for name in names):
        return [Fault(key, "not evaluated", experiment.samples) for key in experiment.keys]
    tables = {name: warehouse.read_table(name) for name in names}
    try:
        return Parts.of(experiment, tables).faults(tables["eval_set"], study, gpu)
    except LineageError:  # tables of an earlier version: what this run does not make is void
        return [Fault(key, "not evaluated", experiment.samples) for key in experiment.keys]


def finite_losses_check(asset: str, may_be_empty: bool = False) -> dg.AssetChecksDefinition:
    """The blocking check ``<asset>_are_finite``: every loss is a positive, finite number.

    Args:
        may_be_empty: whether a table without losses passes: that of an experiment with a gate.
    """

    @dg.asset_check(
        asset=asset,
        name=f"{asset}_are_finite",
        description="Every loss is a positive, finite number.",
        blocking=True,
    )
    def check(losses: pd.DataFrame) -> dg.AssetCheckResult:
        return losses_are_finite(losses, may_be_empty)

    return check


def losses_are_finite(losses: pd.DataFrame, may_be_empty: bool = False) -> dg.AssetCheckResult:
    """Fails with the number of losses that are not positive and finite, and shows the first."""
    good = np.isfinite(losses["loss"]) & (losses["loss"] > 0)
    bad = losses[~good]
    return dg.AssetCheckResult(
        passed=bad.empty and (len(losses) > 0 or may_be_empty),
        metadata={
            "losses": len(losses),
            "not finite": len(bad),
            "first": str(bad.head(3).to_dict("records")),
        },
    )


def parts_agree_check(experiment: Experiment, asset: str) -> dg.AssetChecksDefinition:
    """The blocking check ``<experiment>_parts_agree`` of the asset in which its tables meet.

    Each partition's sets, finetunes and losses belong together, were made with the profile's
    settings, base and evaluation set, and hold nothing that the pool has lost.
    """
    from im_assets.experiments.points import Parts

    name, tables_read = f"{experiment.name}_parts_agree", Parts.names(experiment)
    spec = dg.AssetCheckSpec(
        name,
        asset=asset,
        additional_deps=tables_read,
        description=f"Sets, finetunes and losses of the {experiment.noun} belong together, and "
        "were made with the profile's settings; names those that were not, and what to "
        "materialize.",
        blocking=True,
    )

    # The decorator for a single check takes no tables whose names are not written out.
    @dg.multi_asset_check(
        name=spec.get_python_identifier(),  # two assets of one job may have this check
        specs=[spec],
        ins={table: dg.AssetIn(table) for table in tables_read},
    )
    def check(
        study: dg.ResourceParam[Study], gpu: GpuResource, **tables: pd.DataFrame
    ) -> dg.AssetCheckResult:
        parts = Parts.of(experiment, tables)
        faults = parts.faults(tables["eval_set"], study, gpu)
        total = len(parts.experiment.keys)
        by_kind = pd.Series([fault.kind for fault in faults], dtype=object).value_counts()
        return dg.AssetCheckResult(
            passed=not faults,
            description="; ".join(told(faults, total)) or f"all {total} {experiment.noun}",
            metadata={
                "partitions": total,
                "with a fault": len(faults),
                "faults": dg.MetadataValue.json({f.partition: f.kind for f in faults}),
                "by kind": dg.MetadataValue.json({str(k): int(n) for k, n in by_kind.items()}),
            },
        )

    return check
