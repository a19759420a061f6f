"""How well base and finetunes predict the reference outputs: base_losses, eval_losses, its like."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.figures import loss_curve, png_markdown
from im_assets.common.presentation import presentation
from im_assets.common.progress import Progress
from im_assets.experiments.evaluation import (
    CODE_VERSION,
    evaluate_adapters,
    evaluate_base,
    evaluation_fingerprint,
    evaluation_rows,
    overall,
)
from im_assets.experiments.experiment import Experiment, seed_of
from im_assets.experiments.finetuning import CODE_VERSION as TRAINING_VERSION
from im_assets.experiments.finetuning import Finetune, finetune_all
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse

COLUMNS = {
    "eval_id": ("text", "Instruction of the evaluation set"),
    "output_index": ("bigint", "Reference output of the instruction, from 0"),
    "nll": ("double", "Negative log-likelihood summed over the output's tokens, nats"),
    "tokens": ("bigint", "Tokens of the output"),
    "loss": ("double", "nll / tokens: mean cross-entropy, nats"),
    "fingerprint": ("text", "What the loss depends on: adapter or base, evaluation set, settings"),
}


CACHE, CACHE_KEY = "eval_loss_cache", ["fingerprint", "eval_id", "output_index"]
PRESENTATION: dict[str, Any] = {
    "kinds": {"pytorch", "duckdb"},
    "code_version": str(CODE_VERSION),
    "gpu": True,
}


@dg.asset(**presentation("evaluation", columns=COLUMNS, **PRESENTATION))
def base_losses(
    eval_set: pd.DataFrame,
    study: dg.ResourceParam[Study],
    gpu: GpuResource,
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[pd.DataFrame]:
    """The base model's own loss on every reference output: what a finetune has to beat."""
    rows = evaluation_rows(eval_set, study.evaluation)
    key = fingerprint(gpu.base_fingerprint(study), evaluation_fingerprint(rows, study))
    losses = cached_losses(warehouse, key)
    if losses is None:
        losses = evaluate_base(rows, study, gpu).assign(fingerprint=key)
        warehouse.append(CACHE, losses, key=CACHE_KEY)
    loss = overall(losses, study.evaluation.weighting)
    metadata = {"loss": loss, "instructions": losses["eval_id"].nunique(), "outputs": len(losses)}
    return dg.Output(losses, metadata=metadata)


def losses_asset(experiment: Experiment) -> dg.AssetsDefinition:
    """The asset with the evaluation losses of each of the experiment's finetunes."""
    column = {experiment.column: ("text", "Partition key")}

    @dg.asset(
        name=experiment.losses,
        description="The loss of the model finetuned on each of the "
        f"{experiment.noun}, on every reference output of the evaluation set.",
        partitions_def=experiment.partitions,
        deps=[experiment.adapters],
        **presentation(
            experiment.group or "evaluation",
            columns={**column, **COLUMNS},
            partition_column=experiment.column,
            **PRESENTATION,
        ),
    )
    def losses_of(
        context: dg.AssetExecutionContext,
        eval_set: pd.DataFrame,
        base_losses: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> pd.DataFrame:
        rows = evaluation_rows(eval_set, study.evaluation)
        found = {key: adapters.latest(key) for key in context.partition_keys}
        progress = Progress(context, "evaluating", len(found), experiment.noun)
        done, new = evaluated(found, rows, study, gpu, warehouse, progress)
        base = overall(base_losses, study.evaluation.weighting)
        for partition, losses in done.items():
            loss = overall(losses, study.evaluation.weighting)
            context.add_asset_metadata(
                {
                    "loss": loss,
                    "log loss": math.log(loss),
                    "base model's loss": base,
                    "change against the base": loss - base,
                    "token-weighted loss": overall(losses, "token"),
                    "instruction-weighted loss": overall(losses, "instruction"),
                    "evaluated in this run": partition in new,
                },
                partition_key=partition,
            )
        return pd.concat(
            [done[p].assign(**{experiment.column: p}) for p in context.partition_keys],
            ignore_index=True,
        )

    return losses_of


def evaluated(
    found: Mapping[str, tuple[Path, Mapping[str, Any]]],
    rows: pd.DataFrame,
    study: Study,
    gpu: GpuResource,
    warehouse: Warehouse,
    progress: Progress | None = None,
) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """Losses of every adapter on ``rows``; what was measured before is not measured again.

    Args:
        found: folder and manifest of each adapter, by partition key.

    Returns:
        The losses by partition key, with their fingerprint, and the keys evaluated just now.
    """
    shared = evaluation_fingerprint(rows, study)
    keys = {p: fingerprint(manifest["fingerprint"], shared) for p, (_, manifest) in found.items()}
    cached = {p: cached_losses(warehouse, key) for p, key in keys.items()}
    done = {p: losses for p, losses in cached.items() if losses is not None}
    missing = {p: folder for p, (folder, _) in found.items() if p not in done}
    if not missing:
        return done, set()  # the base model is not loaded for nothing
    if progress is not None:
        progress.total = len(missing)
    step = None if progress is None else progress.step
    for partition, losses in evaluate_adapters(missing, rows, study, gpu, step):
        done[partition] = losses.assign(fingerprint=keys[partition])
        warehouse.append(CACHE, done[partition], key=CACHE_KEY)
    return done, set(missing)


def cached_losses(warehouse: Warehouse, key: str) -> pd.DataFrame | None:
    """The losses measured under this fingerprint before, or None."""
    if not warehouse.has_table(CACHE):
        return None
    losses = warehouse.query("eval_losses_of.sql", {"fingerprint": key})
    return losses if len(losses) else None


def adapters_asset(experiment: Experiment) -> dg.AssetsDefinition:
    """The asset with one LoRA adapter for each of the experiment's sets of examples."""

    @dg.asset(
        name=experiment.adapters,
        description=f"LoRA adapters finetuned on the {experiment.noun}, on the frozen, shared base "
        "model; loss on response tokens only. Kept as PEFT folders; one whose fingerprint is "
        "complete is not trained again.",
        partitions_def=experiment.partitions,
        ins={
            "samples": dg.AssetIn(experiment.samples),
            "examples": dg.AssetIn(experiment.examples),
        },
        **presentation(
            experiment.group or "finetuning",
            {"pytorch", "huggingface"},
            code_version=str(TRAINING_VERSION),
            gpu=True,
        ),
    )
    def adapters_of(
        context: dg.AssetExecutionContext,
        samples: pd.DataFrame,
        examples: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
    ) -> dg.MaterializeResult:
        work = finetunes(samples, examples, experiment.column)
        progress = Progress(context, "finetuning", len(work), experiment.noun)
        trained = 0
        for key, manifest, new in finetune_all(work, study, gpu, adapters, progress.step):
            trained += new
            context.add_asset_metadata(_metadata(manifest, adapters, key, new), partition_key=key)
        return dg.MaterializeResult(metadata={"trained in this run": trained})

    return adapters_of


def finetunes(samples: pd.DataFrame, examples: pd.DataFrame, column: str) -> dict[str, Finetune]:
    """The finetunes of all sets in ``samples``, by partition key (in ``column``)."""
    texts = examples[["example_id", "instruction", "input", "output"]]
    return {
        str(key): Finetune(
            str(key),
            seed_of(str(key)),
            members.sort_values("position")[["example_id"]].merge(
                texts, on="example_id", validate="one_to_one"
            ),
        )
        for key, members in samples.groupby(column)
    }


def _metadata(manifest: dict[str, Any], store: AdapterStore, key: str, new: bool) -> dict[str, Any]:
    losses = manifest["losses"]
    return {
        "loss curve": png_markdown(loss_curve(losses, f"training loss, {key}"), "training loss"),
        "first loss": losses[0],
        "last loss": losses[-1],
        "steps": len(losses),
        "tokens/s": round(manifest["tokens"] / manifest["seconds"], 1),
        "wall seconds": manifest["seconds"],
        "precision": manifest["precision"],
        "trained in this run": new,
        "adapter": dg.MetadataValue.path(store.folder(key, manifest["fingerprint"])),
    }
