"""LoRA adapters over the frozen, shared base (Hu et al. 2021; QLoRA when the base is quantized).

Also rank-stabilized LoRA (Kalajdzievski 2023, arXiv:2312.03732) and DoRA (Liu et al. 2024,
arXiv:2402.09353), as PEFT has them.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch

from im_resources.language_model.engines import Choice, Engines
from im_resources.language_model.loading import LoadedModel, ModelError
from im_resources.language_model.packable import tell_padded
from im_resources.language_model.packing import UnpackableError
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.together import Engine
from im_resources.language_model.training import CHECKPOINTING, OnStep, Training, train
from im_resources.study import FinetuningSettings

_DRAWING = threading.Lock()


def add_adapter(base: LoadedModel, settings: FinetuningSettings, seed: int) -> Any:
    """A PEFT model with fresh LoRA weights (drawn from ``seed``) over the shared base.

    Thread-safe: the weights are drawn from the global random generator under a lock.

    Raises:
        ModelError: DoRA over a base in int8 on a CPU, which PEFT cannot compute.
    """
    from peft import LoraConfig, get_peft_model

    if settings.use_dora and base.precision == "int8" and base.device.type == "cpu":
        # It puts every weight back on the CPU in each pass, and bitsandbytes then loses its scales
        # (dequantize_module_weight in peft/utils/integrations.py, PEFT 0.21).
        raise ModelError(
            "finetuning.use_dora: DoRA over a base in int8 works on a GPU only; set "
            "models.precision to nf4, fp32 or bf16, or leave use_dora out"
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,  # dropout would draw from a generator that side-by-side seeds share
        target_modules=list(settings.target_modules),
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
    )
    with _DRAWING, torch.random.fork_rng(devices=_cuda_devices(base)):
        torch.manual_seed(seed)
        return get_peft_model(base.replica(), config)


def train_adapter(
    adapter: Any,
    encoded: Sequence[Encoded],
    settings: FinetuningSettings,
    seed: int,
    on_step: OnStep | None = None,
    engine: Engine | Engines | None = None,
) -> Training:
    """Finetune the adapter in place, and nothing of its base (see ``training.train``).

    Args:
        engine: where others are trained beside it; without one it is trained alone.
    """
    engine = engine or engine_for(adapter, settings, max(e.length for e in encoded))
    if engine is not None:
        return engine.train(adapter, encoded, settings, seed, on_step)
    if settings.gradient_checkpointing:
        adapter.enable_input_require_grads()
        adapter.gradient_checkpointing_enable(CHECKPOINTING)
    weights = [p for p in adapter.parameters() if p.requires_grad]
    return train(adapter.get_base_model(), weights, encoded, settings, seed, on_step)


def engine_for(adapter: Any, settings: FinetuningSettings, longest: int) -> Engine | None:
    """What trains adapters like this one in shared steps; None, and a warning, where nothing can.

    Args:
        longest: tokens of the longest row there will be.
    """
    try:
        return Engine(adapter, settings, longest)
    except UnpackableError as error:
        name = type(adapter.get_base_model()).__name__
        tell_padded(name, "trained on padded batches, one adapter a worker", str(error))
        return None


def engines_of(
    base: LoadedModel,
    settings: FinetuningSettings,
    longest: int,
    choice: Choice,
    first: Engine | None = None,
) -> Engines:
    """So many engines, on so many threads each. Raises UnpackableError.

    Args:
        first: one of them, where it is made already.
    """
    engines = [] if first is None else [first]
    while len(engines) < choice.engines:
        engines.append(Engine(add_adapter(base, settings, 0), settings, longest))
    for engine in engines:
        engine.threads = choice.threads
    return Engines(engines)


def _cuda_devices(base: LoadedModel) -> list[torch.device]:
    return [base.device] if base.device.type == "cuda" else []
