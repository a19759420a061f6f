"""dolly_selection: what the rule would finetune on."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.catalog import OWNERS, column_schema, preview
from im_assets.figures import histogram, png_markdown
from im_assets.rule.document import load_rule
from im_assets.scoring.batch import Models
from im_assets.selection.pool import pool_indicators
from im_assets.selection.selecting import (
    compare_with_random,
    export_jsonl,
    rank_by_rule,
    select,
)
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

SELECTION_FILE = "selection.jsonl"


@dg.asset(
    group_name="selection",
    owners=OWNERS,
    kinds={"python", "duckdb"},
    code_version="1",
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata=column_schema(
        {
            "rank": ("bigint", "1 = lowest predicted log loss"),
            "example_id": ("text", "Content hash of the example"),
            "instruction": ("text", "What is asked"),
            "input": ("text", "Context of the instruction"),
            "output": ("text", "The response"),
            "category": ("text", "The pool's own category"),
            "predicted_log_loss": ("double", "The rule's value for this example"),
        }
    ),
)
def dolly_selection(
    dolly_dataset: pd.DataFrame,
    dolly_scores: pd.DataFrame,
    quality_rule: pd.DataFrame,
    study: dg.ResourceParam[Study],
    gpu: GpuResource,
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[pd.DataFrame]:
    """The examples of the unseen pool that the rule ranks best, with rank, predicted log loss and
    every indicator; also exported as JSONL, ready to finetune on."""
    rule = load_rule(quality_rule)
    ids = dolly_dataset["example_id"].tolist()
    indicators = pool_indicators(ids, dolly_scores, study, Models.of(study, gpu), warehouse)
    ranked = rank_by_rule(dolly_dataset, indicators, rule)
    size = study.selection.size
    selection = select(ranked, size)
    path = study.folder / SELECTION_FILE
    export_jsonl(selection, path)
    compared = compare_with_random(
        ranked, size, ["predicted_log_loss", *indicators.columns], study.selection.random_draws
    )
    values = ranked["predicted_log_loss"]
    plot = histogram(
        {"whole pool": values, "selected": values.head(size)},
        "rule over the pool",
        "predicted log loss",
    )
    shown = ["rank", "predicted_log_loss", "instruction", "output"]
    metadata: dict[str, Any] = {
        "selected": len(selection),
        "pool": len(ranked),
        "rule": rule.formula,
        "study": study.label or study.name,
        "against random subsets of the same size": preview(compared, rows=len(compared)),
        "distribution": png_markdown(plot, "predicted log loss of pool and selection"),
        "best": preview(ranked[shown], rows=8),
        "worst": preview(ranked[shown].iloc[::-1], rows=8),
        "export": dg.MetadataValue.path(path),
    }
    return dg.Output(selection, metadata=metadata)
