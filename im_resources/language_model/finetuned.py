"""What a finetune leaves behind, and how it is loaded again: an adapter, or a whole model.

Both are folders of safetensors that plain PEFT and transformers load too.
"""

import copy
from pathlib import Path
from typing import Any

from im_resources.language_model.loading import LoadedModel, ModelError

ADAPTER = "adapter_model.safetensors"
WHOLE = "model.safetensors"


def trainable_copy(base: LoadedModel) -> Any:
    """A model with weights of its own, all float32 and trainable, that starts as the base.

    In bfloat16 an update below 1/256 of a weight would be rounded away, step after step: weights
    that are trained are kept in float32, and ``base.dtype`` is for the matrix products only.

    Raises:
        ModelError: the base is quantized; its weights are rounded for good and cannot move.
    """
    if base.precision not in ("fp32", "bf16"):
        raise ModelError(
            f"a base in {base.precision} has no weights to train, only adapters over it: set "
            "models.precision to fp32 or bf16, or finetuning.trainer to lora"
        )
    model = copy.deepcopy(base.model)
    for weight in model.parameters():
        weight.data = weight.data.float()
    return model.requires_grad_(True)


def save_whole(model: Any, base: LoadedModel, folder: Path) -> None:
    """Write all weights, in the base's precision, with config and tokenizer.

    What is measured is what is written: rounded to bfloat16 once, when the base is in it.
    """
    for name, weight in base.model.named_parameters():
        trained = model.get_parameter(name)
        trained.data = trained.data.to(weight.dtype)
    model.config.dtype = base.model.dtype
    # Under the names that the weights have in memory: some architectures are renamed otherwise.
    model.save_pretrained(folder, save_original_format=False)
    base.tokenizer.save_pretrained(folder)


def load_finetuned(base: LoadedModel, folder: Path) -> Any:
    """The causal language model that a trainer left in ``folder``, ready to be evaluated.

    An adapter lies over a replica of the shared base; whole weights are the model's own. Unlike
    ``from_pretrained`` of a whole model, which changes the process's default dtype for a moment,
    this does not disturb the threads beside it.

    Raises:
        ModelError: neither is there as safetensors, or it does not fit the base.
    """
    weights = weights_file(folder)
    return (_with_adapter if weights.name == ADAPTER else _whole)(base, weights).eval()


def weights_file(folder: Path) -> Path:
    """The safetensors of an adapter or of a whole model. Raises ModelError without either."""
    for name in (ADAPTER, WHOLE):
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"no {ADAPTER} and no {WHOLE} in {folder}; a trainer has to write one of them")


def _with_adapter(base: LoadedModel, weights: Path) -> Any:
    from peft import PeftModel

    try:
        model = PeftModel.from_pretrained(base.replica(), str(weights.parent))
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{weights} does not fit the base model: {error}") from error
    if model.active_peft_config.is_prompt_learning:
        raise ModelError(f"{weights} is a learned prompt, which is no change of the base's weights")
    return model.get_base_model()


def _whole(base: LoadedModel, weights: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    model = copy.deepcopy(base.model)
    try:
        load_model(model, weights)
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"{weights} does not fit the base model: {error}") from error
    return model
