"""Does a base fit on one GPU, and how: the platform does not spread a base over several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from im_assets.planning.scale.coefficients import Coefficients
from im_assets.planning.scale.machines import CPU, Machine
from im_assets.planning.scale.models import Model
from im_assets.planning.scale.ranges import Range
from im_resources.study import FinetuningSettings

GIB = 2**30
Fits = Literal["yes", "perhaps", "no"]
# Tried in this order; nf4 before int8, which was slower and takes more (docs/measurements/h200.md).
WAYS = (
    ("bf16", False),
    ("bf16", True),
    ("nf4", False),
    ("nf4", True),
    ("int8", False),
    ("int8", True),
)
_STATES = 16  # bytes of a trained weight in float32: itself, its gradient, two moments of AdamW


@dataclass(frozen=True)
class Way:
    """How a base is trained on one machine.

    Attributes:
        memory: GiB; None: of this precision nobody knows.
    """

    precision: str
    checkpointing: bool
    memory: Range | None
    fits: Fits

    def __str__(self) -> str:
        return self.precision + (", checkpointing" if self.checkpointing else "")


def trained(model: Model, settings: FinetuningSettings) -> int:
    """Weights that a finetune trains and keeps."""
    if settings.trainer != "lora":
        return model.parameters
    names = model.shape.adapted(settings.target_modules)
    return settings.lora_rank * sum(sum(model.shape.linear[name]) for name in names)


def memory_of(
    model: Model,
    precision: str,
    settings: FinetuningSettings,
    tokens: float,
    known: Coefficients,
    at_once: int = 1,
) -> Range | None:
    """GiB of a training step; None where a coefficient of the precision is not known.

    Args:
        tokens: of one adapter's batch.
        at_once: adapters that share the step.
    """
    bytes_each = known.get(f"weight_bytes_{precision}")
    unit = known.get(f"activation_bytes_{precision}")
    if bytes_each is None or unit is None:
        return None
    # The embeddings and the output layer are not quantized.
    weights = bytes_each * model.shape.weights + 2 * (model.shape.head + model.embedded)
    kept = unit * model.layers
    if settings.gradient_checkpointing:  # and one layer's own while it is computed again
        kept = known.known("checkpoint_bytes") * model.layers + unit
    activations = kept * (model.hidden * tokens * at_once)
    states = Range.of(_STATES * trained(model, settings) * at_once)
    return (weights + activations + states) * (1 / GIB) + known.known("memory_beside")


def way_of(
    model: Model,
    machine: Machine,
    settings: FinetuningSettings,
    tokens: float,
    known: Coefficients,
    ways: Sequence[tuple[str, bool]] = WAYS,
) -> Way:
    """The first of the ways that fits for sure; else the one that takes least.

    Args:
        ways: precision, and whether with gradient checkpointing, in the order of preference.
    """
    if machine.name == CPU:
        return Way(*ways[0], None, "yes")
    found = []
    for name, checkpointing in ways:
        mine = settings.model_copy(update={"gradient_checkpointing": checkpointing})
        memory = memory_of(model, name, mine, tokens, known)
        way = Way(name, checkpointing, memory, _fits(memory, machine))
        if way.fits == "yes":
            return way
        found.append(way)
    return min(found, key=lambda way: way.memory.high if way.memory is not None else 0)


def _fits(memory: Range | None, machine: Machine) -> Fits:
    if memory is None or memory.low <= machine.memory < memory.high:
        return "perhaps"
    return "yes" if memory.high <= machine.memory else "no"
