"""LoRA finetuning on the frozen, shared base (Hu et al. 2021; QLoRA when the base is quantized).

The loss is the mean cross-entropy over the response tokens of a batch, as in the paper's setting.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from im_resources.language_model.batching import collate, shuffled
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.losses import hidden_states, token_nll
from im_resources.language_model.prompts import Encoded
from im_resources.study import FinetuningSettings

_DRAWING = threading.Lock()


@dataclass(frozen=True)
class Training:
    """What a finetune did: loss of each step (nats per response token), tokens, seconds."""

    losses: list[float]
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def add_adapter(base: LoadedModel, settings: FinetuningSettings, seed: int) -> Any:
    """A PEFT model with fresh LoRA weights (drawn from ``seed``) over the shared base.

    Thread-safe: the weights are drawn from the global random generator under a lock.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,  # dropout would draw from a generator that side-by-side seeds share
        target_modules=list(settings.target_modules),
    )
    with _DRAWING, torch.random.fork_rng(devices=_cuda_devices(base)):
        torch.manual_seed(seed)
        model = get_peft_model(base.replica(), config)
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def train(
    adapter: Any,
    encoded: Sequence[Encoded],
    settings: FinetuningSettings,
    seed: int,
    on_step: Callable[[int, int, int], None] | None = None,
) -> Training:
    """Finetune the adapter in place.

    Args:
        encoded: the mixture's examples, one response each.
        seed: decides the order of the batches.
        on_step: called after each step with (step, steps, tokens of the step).

    Raises:
        FloatingPointError: the loss is not finite; says at which step, and what usually helps.
    """
    model = adapter.get_base_model()
    weights = [p for p in adapter.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    plan = shuffled(encoded, settings.batch_size, settings.epochs, generator)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _multiplier(settings, len(plan)))
    adapter.train()
    losses: list[float] = []
    tokens, start = 0, time.perf_counter()
    for step, items in enumerate(plan, 1):
        batch = collate(items, encoded, model.device)
        loss = token_nll(model, hidden_states(model, batch), batch.target).mean()
        losses.append(loss.item())
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {losses[-1]} at step {step} of {len(plan)}; a lower "
                f"finetuning.learning_rate than {settings.learning_rate} usually helps"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += batch.tokens
        if on_step is not None:
            on_step(step, len(plan), batch.tokens)
    adapter.eval()
    return Training(losses, tokens, time.perf_counter() - start)


def _cuda_devices(base: LoadedModel) -> list[torch.device]:
    return [base.device] if base.device.type == "cuda" else []


def _multiplier(settings: FinetuningSettings, steps: int) -> Callable[[int], float]:
    """Learning-rate factor of each step: linear warm-up, then the chosen schedule."""
    warmup = round(settings.warmup_fraction * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, steps - warmup)
        if settings.schedule == "linear":
            return 1 - done
        return 0.5 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1.0

    return factor
