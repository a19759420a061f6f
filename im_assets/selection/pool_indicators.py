"""<pool>_indicators: an unseen pool's indicators, computed once for all that choose from it."""

import dagster as dg
import pandas as pd

from im_assets.common.presentation import presentation, preview, table
from im_assets.rule.document import load_rule
from im_assets.rule.ready import set_size
from im_assets.scoring.batch import Models
from im_assets.scoring.cached import cached_scores
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import chosen
from im_assets.selection.pool import (
    MADE_BY,
    indicators_id,
    of_examples,
    pool_indicators,
    read_by,
)
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse


def pool_indicators_asset(pool: str, study: Study) -> dg.AssetsDefinition:
    """The asset ``<pool>_indicators``."""
    columns = {
        "example_id": ("text", "Content hash of the example"),
        **{
            i.name: (
                "double",
                "Of the example"
                if i.backend.scope == "example"
                else "What the example would have in a random mixture; where something reads it",
            )
            for i in chosen(study.scoring)
        },
        MADE_BY: ("text", "Fingerprint of the rule and the indicators' versions"),
    }

    @dg.asset(
        name=f"{pool}_indicators",
        description="One row an example of the unseen pool, one column an indicator. Properties of "
        "a set (KNN-i) are there as far as the rule or a strategy reads them.",
        ins={
            "examples": dg.AssetIn(f"{pool}_dataset", metadata={"columns": ["example_id"]}),
            "quality_rule": dg.AssetIn("quality_rule"),
        },
        deps=[f"{pool}_scores"],  # long, and read by SQL
        **presentation(
            "selection",
            {"python", "duckdb"},
            columns,
            reads=(
                "mixtures.size",
                "scoring.indicators",
                "selection.strategy",
                "selection.options",
                "validation.strategies",
            ),
        ),
    )
    def indicators_of_pool(
        examples: pd.DataFrame,
        quality_rule: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        rule, models = load_rule(quality_rule), Models.of(study, gpu)
        ids = examples["example_id"].tolist()
        keys = {i.name: i.fingerprint(models) for i in of_examples(study)}
        found = pool_indicators(
            ids,
            cached_scores(ids, keys, warehouse, f"{pool}_scores"),
            study,
            lambda: embeddings_of(ids, models, warehouse),
            set_size(rule, study),
            read=read_by(rule, study),
        )
        summary = found.describe().T.rename_axis("indicator").reset_index()
        made = found.reset_index().assign(**{MADE_BY: indicators_id(rule, study, models)})
        return table(made, {"summary": preview(summary, rows=len(summary))})

    return indicators_of_pool
