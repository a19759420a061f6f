"""The losses of finetuned models, computed as training computes them: adapters beside the shared
base (``slots.py``), rows end to end.

A pass over few tokens does not fill a GPU. Where the evaluation set is that small, the same rows
lie in a pass several times, once for each adapter.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from im_resources.language_model.finetuned import load_finetuned
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.losses import (
    OnBatch,
    OutputLosses,
    Packing,
    losses_of_each,
    output_losses,
)
from im_resources.language_model.packing import UnpackableError
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.slots import Slots, lora_layers
from im_resources.language_model.together import carrier_of


def at_once(base: LoadedModel, encoded: Sequence[Encoded], tokens_per_batch: int) -> int:
    """How many adapters share their passes: on a GPU, as many as one batch has room for.

    On a CPU one, since a few hundred tokens fill its cores: two at once took as long.
    """
    if base.device.type == "cpu":
        return 1
    return max(1, tokens_per_batch // max(1, sum(e.length for e in encoded)))


def losses_under(
    base: LoadedModel,
    folders: Sequence[Path],
    encoded: Sequence[Encoded],
    tokens_per_batch: int,
    on_batch: OnBatch | None = None,
) -> list[OutputLosses]:
    """Losses of every response under each of the models that trainers left in ``folders``.

    Adapters of the same layers share their passes; whatever else there is has passes of its own.

    Args:
        on_batch: as of ``output_losses``; a shared batch counts once.

    Raises ModelError for a folder that does not fit the base.
    """
    models = [load_finetuned(base, folder) for folder in folders]
    shared = _shared(models, encoded)
    if shared is not None:
        return losses_of_each(shared, encoded, tokens_per_batch, on_batch=on_batch)
    return [output_losses(model, encoded, tokens_per_batch, on_batch=on_batch) for model in models]


def _shared(models: Sequence[Any], encoded: Sequence[Encoded]) -> Packing | None:
    """Passes through all adapters at once; None where they cannot be computed like that."""
    layers, slots = [lora_layers(model) for model in models], Slots()
    if not layers[0] or any(each.keys() != layers[0].keys() for each in layers):
        return None
    try:
        carrier = carrier_of(models[0], slots, max((e.length for e in encoded), default=0))
    except UnpackableError:
        return None

    def prepare(parts: Sequence[slice]) -> None:
        slots.parts = list(zip(layers, parts, strict=True))

    return Packing(carrier.eval(), encoded, len(models), prepare)
