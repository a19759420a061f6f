"""finetuned_adapters: one LoRA adapter a mixture, on one frozen base."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.catalog import OWNERS
from im_assets.figures import loss_curve, png_markdown
from im_assets.finetuning.finetune import CODE_VERSION, Finetune, finetune_all
from im_assets.partitions import seed_of, seed_partitions
from im_assets.progress import Progress
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import Study


def finetuning_assets(study: Study) -> list[dg.AssetsDefinition]:
    """The assets of this room for a study's seeds."""

    @dg.asset(
        partitions_def=seed_partitions(study),
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="finetuning",
        owners=OWNERS,
        kinds={"pytorch", "huggingface"},
        pool="gpu",
        code_version=str(CODE_VERSION),
    )
    def finetuned_adapters(
        context: dg.AssetExecutionContext,
        mixed_samples: pd.DataFrame,
        candidate_datasets: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
    ) -> dg.MaterializeResult:
        """LoRA adapters finetuned on the mixtures, on the frozen, shared base model; loss on
        response tokens only. Kept as PEFT folders; a seed whose fingerprint is complete is not
        trained again."""
        work = finetunes(mixed_samples, candidate_datasets)
        progress = Progress(context, "finetuning", len(work), "mixtures")
        trained = 0
        for key, manifest, new in finetune_all(work, study, gpu, adapters, progress.step):
            trained += new
            context.add_asset_metadata(_metadata(manifest, adapters, key, new), partition_key=key)
        return dg.MaterializeResult(metadata={"trained in this run": trained})

    return [finetuned_adapters]


def finetunes(mixtures: pd.DataFrame, candidates: pd.DataFrame) -> dict[str, Finetune]:
    """The finetunes of all mixtures in the frame, by partition key."""
    texts = candidates[["example_id", "instruction", "input", "output"]]
    return {
        str(key): Finetune(
            str(key),
            seed_of(str(key)),
            members.sort_values("position")[["example_id"]].merge(
                texts, on="example_id", validate="one_to_one"
            ),
        )
        for key, members in mixtures.groupby("seed")
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
