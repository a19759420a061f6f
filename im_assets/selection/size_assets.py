"""size_search: the strategy's selection finetuned on at several sizes, for a searched size."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.figures import png_markdown
from im_assets.common.presentation import presentation, preview
from im_assets.common.progress import Progress
from im_assets.experiments.assets import evaluated
from im_assets.experiments.evaluation import evaluation_rows, overall
from im_assets.experiments.experiment import seed_key
from im_assets.experiments.finetuning import CODE_VERSION, Finetune, finetune_all
from im_assets.selection.choosing import choose
from im_assets.selection.figures import size_figure
from im_assets.selection.pool import Pool, pool_of
from im_assets.selection.size_search import Losses, search_sizes, split_halves
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

COLUMNS = {
    "method": ("text", "blend_search, or grid: geometrically spaced sizes"),
    "trial": ("bigint", "Number of the trial within its method, from 0"),
    "size": ("bigint", "Examples selected and finetuned on"),
    "search_loss": ("double", "Evaluation loss on the half that was searched on"),
    "report_loss": ("double", "Evaluation loss on the other half"),
    "chosen": ("boolean", "Whether this is the size of dolly_selection"),
}


def size_assets(study: Study) -> list[dg.AssetsDefinition]:
    """The asset of a searched size; none when the profile gives the size."""
    if study.selection.size != "searched":
        return []

    @dg.asset(
        **presentation(
            "selection",
            {"pytorch", "duckdb"},
            COLUMNS,
            code_version=str(CODE_VERSION),
            gpu=True,
        )
    )
    def size_search(
        context: dg.AssetExecutionContext,
        dolly_dataset: pd.DataFrame,
        dolly_scores: pd.DataFrame,
        quality_rule: pd.DataFrame,
        eval_set: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        """Sizes of the selection, each finetuned on once and evaluated: BlendSearch, which chooses
        on one half of the evaluation instructions, and a plain grid of as many finetunes. Report
        the losses on the other half: a least of several losses flatters itself."""
        pool = pool_of(dolly_dataset, dolly_scores, quality_rule, study, gpu, warehouse)
        rows = evaluation_rows(eval_set, study.evaluation)
        halves = split_halves(rows["eval_id"].tolist())
        settings = study.selection.search
        progress = Progress(context, "finetuning", 2 * settings.trials, "sizes")

        def evaluate(sizes: Sequence[int]) -> list[Losses]:
            work = finetunes(sizes, pool, study)
            losses = finetuned_losses(work, rows, study, gpu, adapters, warehouse, progress)
            weighting = study.evaluation.weighting
            return [
                (
                    overall(table[table["eval_id"].isin(halves[0])], weighting),
                    overall(table[table["eval_id"].isin(halves[1])], weighting),
                )
                for table in (losses[key] for key in work)
            ]

        trials = pd.DataFrame(map(asdict, search_sizes(evaluate, settings, len(pool))))
        least = trials.loc[trials.groupby("method")["search_loss"].idxmin()]
        figure = size_figure(trials)
        metadata: dict[str, Any] = {
            "size": chosen_size(trials),
            "finetunes": trials["size"].nunique(),
            "strategy": study.selection.strategy,
            "instructions searched on": len(halves[0]),
            "instructions reported on": len(halves[1]),
            "least search loss of each method": preview(least),
            "trials": preview(trials, rows=len(trials)),
            "loss against size": png_markdown(figure, "evaluation loss against selection size"),
        }
        return dg.Output(trials, metadata=metadata)

    return [size_search]


def chosen_size(trials: pd.DataFrame) -> int:
    """The size that the table ``size_search`` chose."""
    return int(trials.loc[trials["chosen"].astype(bool), "size"].iloc[0])


def finetunes(sizes: Sequence[int], pool: Pool, study: Study) -> dict[str, Finetune]:
    """The finetunes on the strategy's selections of these sizes, by partition key, in order.

    All have seed 0, so that they differ in their data alone.
    """
    texts = pool.examples[["example_id", "instruction", "input", "output"]]
    work = {}
    for size in sizes:
        key = f"size-{size}-{seed_key(0)}"
        positions = choose(study.selection, pool, size, seed=0)
        work[key] = Finetune(key, 0, texts.iloc[positions].reset_index(drop=True))
    return work


def finetuned_losses(
    work: dict[str, Finetune],
    rows: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    adapters: AdapterStore,
    warehouse: Warehouse,
    progress: Progress,
) -> dict[str, pd.DataFrame]:
    """Losses of every finetune on ``rows``, by partition key; what is cached is not done again."""
    found = {
        key: (adapters.folder(key, manifest["fingerprint"]), manifest)
        for key, manifest, _ in finetune_all(work, study, gpu, adapters, progress.step)
    }
    return evaluated(found, rows, study, gpu, warehouse)[0]
