"""The one place where assets, checks, jobs and resources meet; what Dagster loads."""

import os
from collections.abc import Sequence
from typing import Any

# Before torch is imported anywhere: idle OpenMP threads that spin steal the cores that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import dagster as dg

from im_assets.candidates import assets as candidates
from im_assets.candidates import checks as candidate_checks
from im_assets.evidence.assets import rule_evidence, transfer_assets
from im_assets.experiments.assets import adapters_asset, base_losses, losses_asset
from im_assets.experiments.checks import finite_losses_check
from im_assets.experiments.experiment import mixture_experiment
from im_assets.judging.assets import judge_assets
from im_assets.mixtures.assets import mixture_assets, seed_design
from im_assets.reporting.assets import report_assets
from im_assets.rule import checks as rule_checks
from im_assets.rule.assets import indicator_table, quality_rule
from im_assets.scoring.assets import dolly_scores, example_scores
from im_assets.scoring.registry import chosen
from im_assets.selection.assets import selection_assets
from im_assets.selection.registry import check_strategies
from im_assets.univariate.assets import univariate_assets
from im_assets.validation.assets import validation_assets
from im_resources.adapter_store import AdapterStoreResource
from im_resources.gpu import GpuResource
from im_resources.study import Study, StudyResource, load_study
from im_resources.warehouse import WarehouseIOManager, WarehouseResource


def definitions(study: Study, profile: str) -> dg.Definitions:
    """All definitions of a study. One process runs all steps, so that the base is loaded once."""
    chosen(study.scoring)  # an unknown indicator is an error here, not hours into a run
    check_strategies(study)
    mixtures = mixture_experiment(study)
    losses = ["base_losses", mixtures.losses]
    losses += ["univariate_losses"] if study.univariate else []
    losses += ["selection_losses"] if study.validation else []
    warehouse = str(study.warehouse)
    assets: list[Any] = [
        *dg.load_assets_from_modules([candidates]),
        *mixture_assets(mixtures),
        adapters_asset(mixtures),
        base_losses,
        losses_asset(mixtures),
        example_scores,
        dolly_scores,
        indicator_table,
        quality_rule,
        *([rule_evidence] if study.rule.source == "fitted" else []),
        seed_design,
        *transfer_assets(study),
        *selection_assets(study),
        *univariate_assets(study),
        *validation_assets(study),
        *judge_assets(study),
        *report_assets(study),
    ]
    return dg.Definitions(
        assets=assets,
        asset_checks=[
            *dg.load_asset_checks_from_modules([candidate_checks, rule_checks]),
            *map(finite_losses_check, losses),
        ],
        jobs=jobs(assets),
        resources={
            "study": StudyResource(profile=profile),
            "gpu": GpuResource(),
            "warehouse": WarehouseResource(path=warehouse),
            "adapters": AdapterStoreResource(root=str(study.folder / "adapters")),
            "io_manager": WarehouseIOManager(database=warehouse),
        },
        executor=dg.in_process_executor,
    )


# What follows the job `study`, in order. A job's partitioned assets share one set of partitions, so
# that each experiment is a job, and a run, of its own.
RUNS = {
    "univariate": "Each indicator alone, over bins of the scored pool.",
    "validation": "Finetunes on selections, against random ones.",
    "judging": "Answers of two finetuned models, compared by a judge.",
    "reporting": "The report of everything before.",
}


def jobs(assets: Sequence[dg.AssetsDefinition]) -> list[Any]:
    """``study`` (from candidate data to a selection) and a job for each further group there is."""
    groups = {group for asset in assets for group in asset.group_names_by_key.values()}
    later = [name for name in RUNS if name in groups]
    study = dg.define_asset_job(
        "study",
        selection=dg.AssetSelection.all() - dg.AssetSelection.groups(*later)
        if later
        else dg.AssetSelection.all(),
        description="From candidate data to a selection: pass a range of seeds for one run.",
    )
    return [study] + [
        dg.define_asset_job(name, selection=dg.AssetSelection.groups(name), description=RUNS[name])
        for name in later
    ]


PROFILE = os.environ.get("IM_PROFILE") or "demo"
defs = definitions(load_study(PROFILE), PROFILE)
