"""The one place where assets, checks, jobs and resources meet; what Dagster loads."""

import os
from typing import Any

# Before torch is imported anywhere: idle OpenMP threads that spin steal the cores that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import dagster as dg

from im_assets.candidates import assets as candidates
from im_assets.candidates import checks as candidate_checks
from im_assets.evaluation.assets import base_losses, losses_asset
from im_assets.evaluation.checks import finite_losses_check
from im_assets.finetuning.assets import adapters_asset
from im_assets.mixtures.assets import mixture_assets
from im_assets.partitions import mixture_experiment
from im_assets.rule import checks as rule_checks
from im_assets.rule.assets import quality_rule
from im_assets.rule.indicator_table import indicator_table
from im_assets.scoring.assets import dolly_scores, example_scores
from im_assets.scoring.registry import chosen
from im_assets.selection.assets import dolly_selection
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
    return dg.Definitions(
        assets=[
            *dg.load_assets_from_modules([candidates]),
            *mixture_assets(mixtures),
            adapters_asset(mixtures),
            base_losses,
            losses_asset(mixtures),
            example_scores,
            dolly_scores,
            indicator_table,
            quality_rule,
            dolly_selection,
            *univariate_assets(study),
            *validation_assets(study),
        ],
        asset_checks=[
            *dg.load_asset_checks_from_modules([candidate_checks, rule_checks]),
            *map(finite_losses_check, losses),
        ],
        jobs=jobs(study),
        resources={
            "study": StudyResource(profile=profile),
            "gpu": GpuResource(),
            "warehouse": WarehouseResource(path=warehouse),
            "adapters": AdapterStoreResource(root=str(study.folder / "adapters")),
            "io_manager": WarehouseIOManager(database=warehouse),
        },
        executor=dg.in_process_executor,
    )


def jobs(study: Study) -> list[Any]:
    """The study in the order of its runs: a job's partitioned assets have one set of partitions."""
    later = dg.AssetSelection.groups("univariate", "validation", "judging", "reporting")
    found = [
        dg.define_asset_job(
            "study",
            selection=dg.AssetSelection.all() - later,
            description="From candidate data to a selection: pass a range of seeds for one run.",
        )
    ]
    if study.univariate:
        found.append(
            dg.define_asset_job(
                "univariate",
                selection=dg.AssetSelection.groups("univariate"),
                description="Each indicator alone, over bins of the scored pool.",
            )
        )
    if study.validation:
        found.append(
            dg.define_asset_job(
                "validation",
                selection=dg.AssetSelection.groups("validation"),
                description="Finetunes on selections, against random ones.",
            )
        )
    return found


PROFILE = os.environ.get("IM_PROFILE") or "demo"
defs = definitions(load_study(PROFILE), PROFILE)
