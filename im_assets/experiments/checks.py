"""Checks of an experiment: whether a run will leave trials out, said before it trains; and what
blocks: losses are numbers, and the parts of every trial belong together."""

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.experiments.experiment import Experiment, some
from im_assets.experiments.finetuning import training_settings_id
from im_assets.experiments.lineage import told
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse


def completeness_spec(experiment: Experiment) -> dg.AssetCheckSpec:
    """The check ``<experiment>_will_be_complete`` of the samples, which `completeness` makes."""
    return dg.AssetCheckSpec(
        f"{experiment.name}_will_be_complete",
        asset=experiment.samples,
        description=f"After this run all {experiment.noun} have losses: a warning, given before "
        "anything is trained. What needs all of them is not made until they are there.",
    )


def completeness(
    context: dg.AssetExecutionContext,
    experiment: Experiment,
    study: Study,
    warehouse: Warehouse,
) -> dg.AssetCheckResult:
    """Which partitions will have no losses after this run, in the catalog and in the run's log.
    Losses of finetunes with other settings than the profile's are none."""
    evaluates = dg.AssetKey(experiment.losses) in context.job_def.asset_layer.selected_asset_keys
    done = set(context.partition_keys) if evaluates else set()
    names, key = (experiment.adapters, experiment.losses), experiment.column
    if all(map(warehouse.has_table, names)):
        adapters, losses = map(warehouse.read_table, names)
        if {"settings_id", "trial_id"} <= set(adapters) and "trial_id" in losses:
            good = adapters[adapters["settings_id"] == training_settings_id(study)]
            measured = losses[[key, "trial_id"]].drop_duplicates()
            done |= set(good.merge(measured, on=[key, "trial_id"])[key])
    missing = [key for key in experiment.keys if key not in done]
    total, noun = len(experiment.keys), experiment.noun
    text = f"all {total} {noun} have losses after this run"
    if missing:
        text = (
            f"{len(missing)} of {total} {noun} have no losses after this run: {some(missing)}. "
            "What needs all of them (a rule, a verdict) is not made until they are there: "
            f"materialize {experiment.samples}, {experiment.adapters} and {experiment.losses} for "
            "them, and what follows"
        )
        context.log.warning(text)
    return dg.AssetCheckResult(
        check_name=completeness_spec(experiment).name,
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
        metadata={"partitions": total, "without losses after this run": len(missing)},
    )


def finite_losses_check(asset: str) -> dg.AssetChecksDefinition:
    """The blocking check ``<asset>_are_finite``: every loss is a positive, finite number."""

    @dg.asset_check(
        asset=asset,
        name=f"{asset}_are_finite",
        description="Every loss is a positive, finite number.",
        blocking=True,
    )
    def check(losses: pd.DataFrame) -> dg.AssetCheckResult:
        return losses_are_finite(losses)

    return check


def losses_are_finite(losses: pd.DataFrame) -> dg.AssetCheckResult:
    """Fails with the number of losses that are not positive and finite, and shows the first."""
    good = np.isfinite(losses["loss"]) & (losses["loss"] > 0)
    bad = losses[~good]
    return dg.AssetCheckResult(
        passed=bad.empty and len(losses) > 0,
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
        total = len(experiment.keys)
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
