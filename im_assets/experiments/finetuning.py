"""Finetune the base on mixtures (paper: LoRA, 3 epochs, batch size 8), several side by side."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import Study, fingerprint

# Changes when the same mixture and settings would train to another adapter.
CODE_VERSION = 1


@dataclass(frozen=True)
class Finetune:
    """One mixture to train on: its partition key, seed, and members in order."""

    partition: str
    seed: int
    examples: pd.DataFrame  # example_id, instruction, input, output

    def fingerprint(self, study: Study, base: str) -> str:
        """Everything that changes the adapter: data, base, prompt, training settings, code."""
        return fingerprint(
            CODE_VERSION,
            base,
            study.models.prompt,
            study.models.max_length,
            study.finetuning,
            self.seed,
            self.examples["example_id"].tolist(),
        )


def finetune_all(
    work: Mapping[str, Finetune],
    study: Study,
    gpu: GpuResource,
    store: AdapterStore,
    on_step: Callable[[str, int, int, int], None] | None = None,
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Train what is not in the store yet; yield (partition, manifest, was trained now).

    An adapter is published as soon as it is trained, so a killed run resumes after the last one.
    """
    base_key = gpu.base_fingerprint(study)
    todo: list[str] = []
    for partition, finetune in work.items():
        key = finetune.fingerprint(study, base_key)
        manifest = store.find(partition, key)
        if manifest is None:
            todo.append(partition)
        else:
            store.point(partition, key)
            yield partition, manifest, False
    if todo:
        yield from _train(todo, work, study, gpu, store, on_step)


def _train(
    todo: list[str],
    work: Mapping[str, Finetune],
    study: Study,
    gpu: GpuResource,
    store: AdapterStore,
    on_step: Callable[[str, int, int, int], None] | None,
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    from im_resources.language_model.lora import add_adapter, train
    from im_resources.language_model.prompts import encode_examples
    from im_resources.language_model.side_by_side import run_side_by_side

    base = gpu.base_model(study)

    def one(partition: str) -> dict[str, Any]:
        finetune = work[partition]
        encoded = encode_examples(base.tokenizer, study.models, finetune.examples)
        adapter = add_adapter(base, study.finetuning, finetune.seed)
        report = None if on_step is None else lambda *step: on_step(partition, *step)
        training = train(adapter, encoded, study.finetuning, finetune.seed, report)
        return store.publish(
            partition,
            finetune.fingerprint(study, base.fingerprint),
            adapter.save_pretrained,
            {
                "seed": finetune.seed,
                "examples": len(encoded),
                "losses": [round(loss, 6) for loss in training.losses],
                "tokens": training.tokens,
                "seconds": round(training.seconds, 3),
                "precision": base.precision,
                "base": base.fingerprint,
                "finetuning": study.finetuning.model_dump(mode="json"),
            },
        )

    for partition, manifest in run_side_by_side(one, todo, gpu):
        yield partition, manifest, True
