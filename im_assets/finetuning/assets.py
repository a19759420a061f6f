"""One LoRA adapter a set of examples, on one frozen base: finetuned_adapters and its like."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.catalog import presentation
from im_assets.figures import loss_curve, png_markdown
from im_assets.finetuning.finetune import CODE_VERSION, Finetune, finetune_all
from im_assets.partitions import Experiment, seed_of
from im_assets.progress import Progress
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import Study


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
            code_version=str(CODE_VERSION),
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
