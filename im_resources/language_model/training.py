"""The training loop, whatever weights it moves: those of an adapter, or all of a model's.

The loss is the mean cross-entropy over the response tokens of a batch, as in the paper's setting.
A long training is checkpointed (``checkpoints.py``), and one that was killed goes on to the same
weights, bit for bit. torch is imported by the loop, so that trainers can name ``Training`` without
it.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from im_resources.study import FinetuningSettings

if TYPE_CHECKING:
    import torch

    from im_resources.language_model.prompts import Encoded

# How activations are recomputed. Nothing is random in it; to set back the generator, which all
# threads share, would change what an adapter that is made meanwhile is drawn from.
CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}

OnStep = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Training:
    """What a finetune did: loss of each step (nats per response token), tokens, seconds."""

    losses: list[float]
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def train(
    model: Any,
    parameters: Sequence["torch.Tensor"],
    encoded: Sequence["Encoded"],
    settings: FinetuningSettings,
    seed: int,
    on_step: OnStep | None = None,
    compute: "torch.dtype | None" = None,
) -> Training:
    """Finetune the ``parameters`` of a causal language model in place, by AdamW.

    Args:
        model: the causal language model itself (of a PEFT model, its base with the adapter in it).
        encoded: the examples, one response each.
        seed: decides the order of the batches.
        on_step: called after each step with (step, steps, tokens of the step); not for those that
            a checkpoint holds.
        compute: dtype of the matrix products where it is not that of the weights (mixed precision).

    Raises:
        FloatingPointError: the loss is not finite; says at which step, and what usually helps.
        DiskError: a checkpoint cannot be written.
        Stopped: the run was told to end.
    """
    import torch

    from im_resources.language_model.batching import collate
    from im_resources.language_model.checkpoints import Position, checkpoint_of
    from im_resources.language_model.losses import hidden_states, token_nll
    from im_resources.language_model.side_by_side import stop_point

    weights = list(parameters)
    optimizer = torch.optim.AdamW(
        weights, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    plan, drawn = plan_of(encoded, settings, seed)
    schedule = schedule_of(optimizer, settings, len(plan))
    without_dropout(model.train())
    optimizer.zero_grad(set_to_none=True)  # of a training before, in which they did not move
    checkpoint = checkpoint_of(model, weights, optimizer, schedule, settings, *drawn, compute)
    done = checkpoint.resume() if checkpoint else Position()
    before, start = done.seconds, time.perf_counter()
    for step, items in enumerate(plan[len(done.losses) :], len(done.losses) + 1):
        stop_point()
        batch = collate(items, encoded, model.device)
        with torch.autocast(model.device.type, compute, enabled=compute is not None):
            loss = token_nll(model, hidden_states(model, batch), batch.target).mean()
        done.losses.append(loss.item())
        if not torch.isfinite(loss):
            raise FloatingPointError(not_finite(done.losses, len(plan), settings))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        done.tokens += batch.tokens
        done.seconds = before + time.perf_counter() - start
        if on_step is not None:
            on_step(step, len(plan), batch.tokens)
        if checkpoint is not None and step < len(plan):
            checkpoint.save_if_due(done)
    model.eval()
    return Training(done.losses, done.tokens, before + time.perf_counter() - start)


def not_finite(losses: list[float], steps: int, settings: FinetuningSettings) -> str:
    """A loss is not finite: is it the training, or was it the model from the start?"""
    told = f"the training loss is {losses[-1]} at step {len(losses)} of {steps}"
    if len(losses) == 1:
        return (
            f"{told}, before any weight was moved: the base model itself gives no finite loss on "
            "these examples. Its files may be damaged, or models.precision too coarse for it; see "
            "the losses of base_losses, and load models.base anew"
        )
    return (
        f"{told}, after finite ones ({losses[0]:.4g} at the first); a lower "
        f"finetuning.learning_rate than {settings.learning_rate} usually helps"
    )


def without_dropout(model: Any) -> Any:
    """The model, which drops nothing from now on.

    Some bases (GPT-2, OPT) drop activations in training, by a generator that all threads share: a
    seed's result would depend on what trains beside it.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    return model


def plan_of(
    encoded: Sequence["Encoded"], settings: FinetuningSettings, seed: int
) -> tuple[list[list[int]], tuple[Any, ...]]:
    """The batches of a training, and all that they were drawn from."""
    import torch

    from im_resources.language_model.batching import shuffled

    generator = torch.Generator().manual_seed(seed)
    plan = shuffled(encoded, settings.batch_size, settings.epochs, generator)
    return plan, (seed, plan, generator.get_state().tolist())


def schedule_of(
    optimizer: "torch.optim.Optimizer", settings: FinetuningSettings, steps: int
) -> Any:
    """The learning rate of each step."""
    import torch

    return torch.optim.lr_scheduler.LambdaLR(optimizer, _multiplier(settings, steps))


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
