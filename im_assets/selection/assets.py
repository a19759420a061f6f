"""dolly_selection: what to finetune on, by the profile's strategy."""

from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.common.figures import histogram, png_markdown
from im_assets.common.presentation import presentation, preview
from im_assets.scoring.indicators.nearest_neighbour import nearest_neighbour
from im_assets.selection.choosing import choose, resolve_size
from im_assets.selection.pool import Pool, pool_of
from im_assets.selection.selecting import compare_with_random, export_jsonl, ranked_table
from im_assets.selection.size_assets import chosen_size, size_assets
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

SELECTION_FILE = "selection.jsonl"
COLUMNS = {
    "rank": ("bigint", "1 = first in the strategy's order"),
    "example_id": ("text", "Content hash of the example"),
    "instruction": ("text", "What is asked"),
    "input": ("text", "Context of the instruction"),
    "output": ("text", "The response"),
    "category": ("text", "The pool's own category"),
    "predicted_log_loss": ("double", "The rule's value for this example"),
    "strategy": ("text", "The strategy that selected it"),
}


def selection_assets(study: Study) -> list[dg.AssetsDefinition]:
    """The assets of this room: dolly_selection, and size_search where the size is searched."""
    searched = study.selection.size == "searched"

    @dg.asset(
        ins={"size_search": dg.AssetIn()} if searched else {},
        **presentation("selection", {"python", "duckdb"}, COLUMNS, code_version="2"),
    )
    def dolly_selection(
        dolly_dataset: pd.DataFrame,
        dolly_scores: pd.DataFrame,
        quality_rule: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **sizes: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        """The examples of the unseen pool that the profile's strategy selects, with rank, predicted
        log loss and every indicator; also exported as JSONL, ready to finetune on."""
        settings = study.selection
        pool = pool_of(dolly_dataset, dolly_scores, quality_rule, study, gpu, warehouse)
        if isinstance(settings.size, str):  # "searched"
            size = chosen_size(sizes["size_search"])
        else:
            size = resolve_size(settings.size, len(pool))
        positions = choose(settings, pool, size, seed=0)
        whole = ranked_table(pool.examples, pool.indicators, pool.rule, range(len(pool)))
        selection = ranked_table(pool.examples, pool.indicators, pool.rule, positions.tolist())
        selection["strategy"] = settings.strategy
        path = study.folder / SELECTION_FILE
        export_jsonl(selection, path)
        numbers = ["predicted_log_loss", *pool.indicators.columns]
        compared = compare_with_random(whole, positions.tolist(), numbers, settings.random_draws)
        by_rule = whole.sort_values(["predicted_log_loss", "example_id"])
        shown = ["rank", "predicted_log_loss", "instruction", "output"]
        plot = histogram(
            {
                "whole pool": whole["predicted_log_loss"],
                "selected": selection["predicted_log_loss"],
            },
            "rule over the pool",
            "predicted log loss",
        )
        metadata: dict[str, Any] = {
            "selected": len(selection),
            "pool": len(pool),
            "strategy": settings.strategy,
            "rule": pool.rule.formula,
            "study": study.label or study.name,
            "against random subsets of the same size": preview(compared, rows=len(compared)),
            "distribution": png_markdown(plot, "predicted log loss of pool and selection"),
            "best": preview(selection[shown], rows=8),
            "worst of the pool by the rule": preview(by_rule[shown[1:]].iloc[::-1], rows=8),
            "export": dg.MetadataValue.path(path),
            **set_distances(pool, positions),
        }
        return dg.Output(selection, metadata=metadata)

    return [*size_assets(study), dolly_selection]


def set_distances(pool: Pool, positions: np.ndarray) -> dict[str, float]:
    """Mean KNN-i of the selection as the set that it is, and of a random set of its size.

    Empty where the profile has no KNN-i, or the selection too few examples.
    """
    if pool.knn is None or len(positions) <= pool.neighbour:
        return {}
    vectors = pool.embeddings()
    generator = np.random.Generator(np.random.PCG64(0))
    random = generator.choice(len(pool), len(positions), replace=False)
    return {
        f"mean {pool.knn} within {name}": float(
            nearest_neighbour(vectors[rows], pool.neighbour).mean()
        )
        for name, rows in (("the selection", positions), ("a random set", random))
    }
