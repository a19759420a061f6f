"""Finetuning as others do it, for comparison: a plain loop of transformers and PEFT, and TRL."""

import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from im_resources.gpu import usable_cores
from im_resources.language_model.engines import Choice
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.lora import add_adapter
from im_resources.language_model.prompts import Encoded
from im_resources.study import FinetuningSettings

IGNORED = -100


@dataclass(frozen=True)
class Run:
    """Tokens of a training without padding, its wall seconds, and the mean of its last losses."""

    tokens: int
    seconds: float
    loss: float

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def arrangement(what: str, device: torch.device) -> Choice:
    """``2x1``: two engines with one adapter each, which share the cores of a CPU."""
    engines, each = map(int, what.split("x"))
    return Choice(engines, each, usable_cores() // engines if device.type == "cpu" else 0)


def tokens_of(rows: Sequence[Encoded], settings: FinetuningSettings) -> int:
    """Tokens of a whole training, without padding."""
    return settings.epochs * sum(row.length for row in rows)


def plain(base: LoadedModel, rows: Sequence[Encoded], settings: FinetuningSettings) -> Run:
    """What a user writes: shuffled batches padded to their longest row, labels, AdamW."""
    model = add_adapter(base, settings, 0).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate)
    loader: Any = torch.utils.data.DataLoader(
        list(range(len(rows))), batch_size=settings.batch_size, shuffle=True
    )
    losses = []
    start = time.perf_counter()
    for _ in range(settings.epochs):
        for items in loader:
            chosen = [rows[i] for i in items.tolist()]
            width = max(row.length for row in chosen)
            ids, labels, mask = (torch.full((len(chosen), width), v) for v in (0, IGNORED, 0))
            for k, row in enumerate(chosen):
                ids[k, : row.length] = torch.tensor([*row.prompt, *row.outputs[0]])
                labels[k, len(row.prompt) : row.length] = ids[k, len(row.prompt) : row.length]
                mask[k, : row.length] = 1
            loss = model(
                input_ids=ids.to(base.device),
                attention_mask=mask.to(base.device),
                labels=labels.to(base.device),
            ).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return Run(tokens_of(rows, settings), time.perf_counter() - start, losses[-1])


def trl(
    base: LoadedModel, rows: Sequence[Encoded], settings: FinetuningSettings, **options: Any
) -> Run:
    """TRL's SFTTrainer on the same tokens; ``options`` of its SFTConfig replace its defaults."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(
        [
            {
                "input_ids": [*row.prompt, *row.outputs[0]],
                "labels": [IGNORED] * len(row.prompt) + list(row.outputs[0]),
            }
            for row in rows
        ]
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=list(settings.target_modules),
    )
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            max_length=None,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=base.device.type == "cpu",
            bf16=base.precision == "bf16",
            seed=0,
            **options,
        )
        trainer = SFTTrainer(
            model=copy.deepcopy(base.model),
            args=config,
            train_dataset=data,
            processing_class=base.tokenizer,
            peft_config=lora,
        )
        start = time.perf_counter()
        done = trainer.train()
        seconds = time.perf_counter() - start
    return Run(tokens_of(rows, settings), seconds, done.training_loss)
