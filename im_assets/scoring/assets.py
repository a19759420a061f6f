"""example_scores and dolly_scores: every example scored once, ever, whatever mixture draws it."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.presentation import presentation, preview
from im_assets.common.progress import Progress
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_assets.scoring.scorer import score_missing
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

COLUMNS = {
    "example_id": ("text", "Content hash of the example"),
    "indicator": ("text", "Name of the indicator in the profile"),
    "backend": ("text", "Backend that computed it"),
    "fingerprint": ("text", "Backend version, options and models"),
    "value": ("double", "The indicator's value"),
}


PRESENTATION: dict[str, Any] = presentation("scoring", {"pytorch", "duckdb"}, COLUMNS, gpu=True)


@dg.asset(**PRESENTATION)
def example_scores(
    context: dg.AssetExecutionContext,
    candidate_datasets: pd.DataFrame,
    mixed_samples: pd.DataFrame,
    study: dg.ResourceParam[Study],
    gpu: GpuResource,
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[pd.DataFrame]:
    """Indicators of the candidates that some mixture drew (`score: members`) or of the whole pool
    (`score: all`). Only what is not in the score cache yet is computed."""
    examples = candidate_datasets
    if study.scoring.score == "members":
        examples = examples[examples["example_id"].isin(set(mixed_samples["example_id"]))]
    return _score(context, examples, study, gpu, warehouse)


@dg.asset(**PRESENTATION)
def dolly_scores(
    context: dg.AssetExecutionContext,
    dolly_dataset: pd.DataFrame,
    study: dg.ResourceParam[Study],
    gpu: GpuResource,
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[pd.DataFrame]:
    """Indicators of every example of the unseen pool."""
    return _score(context, dolly_dataset, study, gpu, warehouse)


def _score(
    context: dg.AssetExecutionContext,
    examples: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    warehouse: Warehouse,
) -> dg.Output[pd.DataFrame]:
    indicators = chosen(study.scoring)
    progress = Progress(
        context, f"scoring for {context.asset_key.to_user_string()}", len(examples), "examples"
    )

    def on_chunk(done: int, todo: int) -> None:
        progress.total = todo
        progress.advance(done)

    models = Models.of(study, gpu)
    scores, new = score_missing(examples, indicators, models, warehouse, on_chunk)
    summary = scores.groupby("indicator")["value"].describe().reset_index()
    metadata: dict[str, Any] = {
        "examples": len(examples),
        "scored in this run": new,
        "backends": {i.name: i.backend.name for i in indicators},
        "summary": preview(summary, rows=len(summary)),
    }
    return dg.Output(scores, metadata=metadata)


def definitions(study: Study) -> dg.Definitions:
    """The assets of this room; an unknown indicator is an error here, not hours into a run."""
    chosen(study.scoring)
    return dg.Definitions(assets=[example_scores, dolly_scores])
