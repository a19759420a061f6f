"""base_losses and eval_losses: how well base and finetunes predict the reference outputs."""

import math

import dagster as dg
import pandas as pd

from im_assets.catalog import OWNERS, column_schema
from im_assets.evaluation.evaluating import (
    CODE_VERSION,
    evaluate_adapters,
    evaluate_base,
    evaluation_fingerprint,
    evaluation_rows,
    overall,
)
from im_assets.partitions import seed_partitions
from im_assets.progress import Progress
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


@dg.asset(
    group_name="evaluation",
    owners=OWNERS,
    kinds={"pytorch", "duckdb"},
    pool="gpu",
    code_version=str(CODE_VERSION),
    backfill_policy=dg.BackfillPolicy.single_run(),
    metadata=column_schema(COLUMNS),
)
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
        warehouse.append("eval_loss_cache", losses, key=["fingerprint", "eval_id", "output_index"])
    loss = overall(losses, study.evaluation.weighting)
    metadata = {"loss": loss, "instructions": losses["eval_id"].nunique(), "outputs": len(losses)}
    return dg.Output(losses, metadata=metadata)


def evaluation_assets(study: Study) -> list[dg.AssetsDefinition]:
    """The assets of this room for a study's seeds."""

    @dg.asset(
        partitions_def=seed_partitions(study),
        deps=["finetuned_adapters"],
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="evaluation",
        owners=OWNERS,
        kinds={"pytorch", "duckdb"},
        pool="gpu",
        code_version=str(CODE_VERSION),
        metadata={
            "partition_expr": "seed",
            **column_schema({"seed": ("text", "Partition key of the mixture"), **COLUMNS}),
        },
    )
    def eval_losses(
        context: dg.AssetExecutionContext,
        eval_set: pd.DataFrame,
        base_losses: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> pd.DataFrame:
        """The loss of every finetuned model on every reference output of the evaluation set."""
        rows = evaluation_rows(eval_set, study.evaluation)
        shared = evaluation_fingerprint(rows, study)
        found = {key: adapters.latest(key) for key in context.partition_keys}
        keys = {
            partition: fingerprint(manifest["fingerprint"], shared)
            for partition, (_, manifest) in found.items()
        }
        done = {
            p: losses
            for p, k in keys.items()
            if (losses := cached_losses(warehouse, k)) is not None
        }
        folders = {p: folder for p, (folder, _) in found.items() if p not in done}
        progress = Progress(context, "evaluating", len(folders), "mixtures")
        for partition, losses in evaluate_adapters(folders, rows, study, gpu, progress.step):
            done[partition] = losses.assign(fingerprint=keys[partition])
            warehouse.append(
                "eval_loss_cache", done[partition], key=["fingerprint", "eval_id", "output_index"]
            )
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
                    "evaluated in this run": partition in folders,
                },
                partition_key=partition,
            )
        return pd.concat(
            [done[p].assign(seed=p) for p in context.partition_keys], ignore_index=True
        )

    return [base_losses, eval_losses]


def cached_losses(warehouse: Warehouse, key: str) -> pd.DataFrame | None:
    """The losses measured under this fingerprint before, or None."""
    if not warehouse.has_table("eval_loss_cache"):
        return None
    losses = warehouse.query("eval_losses_of.sql", {"fingerprint": key})
    return losses if len(losses) else None
