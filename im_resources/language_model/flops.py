"""How much a model computes: floating-point operations by its shape and the tokens, in closed form.

Counted are matrix products, two operations a multiplication with its addition, as Kaplan et al.
2020 (arXiv 2001.08361, section 2.1) and PaLM (arXiv 2204.02311, appendix B) count them, and as
torch's FlopCounterMode does; not what works element by element (norms, softmax, activations, the
optimizer), nor the rounding of quantized weights, whose products are the same. Attention is counted
as far as a token attends: causally, half of the square that a counter of operators sees.

The shape comes from a model's configuration alone; no weight is read.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from im_resources.study import FinetuningSettings, ModelSource

# Layers that read the same input: where the first of them is adapted, none of its companions has
# anything to pass a gradient on to.
TOGETHER = ({"q_proj", "k_proj", "v_proj"}, {"query", "key", "value"}, {"gate_proj", "up_proj"})


class FlopsError(ValueError):
    """A model whose operations these formulas do not count; says which and why."""


@dataclass(frozen=True)
class Shape:
    """What of a transformer decides how much it computes.

    Attributes:
        linear: (in, out) of every linear layer but the output layer, by name, in the model's order.
        attention: query heads × head size, summed over the layers.
        head: weights of the output layer to the vocabulary; 0 where there is none.
    """

    linear: Mapping[str, tuple[int, int]]
    attention: int
    head: int = 0

    @property
    def weights(self) -> int:
        """Weights that every token is multiplied with."""
        return sum(map(math.prod, self.linear.values()))

    def adapted(self, targets: Sequence[str]) -> list[str]:
        """Names of the layers that ``target_modules`` mean, in order, as PEFT finds them."""
        return [name for name in self.linear if _last(name) in targets or _ends(name, targets)]


@dataclass(frozen=True)
class Load:
    """What runs through a model.

    Attributes:
        tokens: all of them.
        pairs: of a token and one that it attends to, itself too, over all rows.
        predicted: positions at which the output layer is computed.
    """

    tokens: float
    pairs: float
    predicted: float = 0.0

    @classmethod
    def of_rows(cls, lengths: Any, predicted: Any = 0) -> "Load":
        """Rows of these lengths under causal attention.

        Args:
            lengths: tokens of each row, [rows].
            predicted: response tokens of each row, [rows].
        """
        tokens = np.asarray(lengths, dtype=float)
        pairs = tokens * (tokens + 1) / 2
        return cls(float(tokens.sum()), float(pairs.sum()), float(np.sum(predicted)))

    @classmethod
    def of_texts(cls, lengths: Any) -> "Load":
        """Texts of these lengths [texts], in which every token attends to all."""
        tokens = np.asarray(lengths, dtype=float)
        return cls(float(tokens.sum()), float((tokens**2).sum()))

    @classmethod
    def of_prompts(cls, lengths: Any, predicted: Any, outputs: Any) -> "Load":
        """Prompts with several outputs each, of which every one attends to the prompt and itself.

        Args:
            lengths: tokens of each prompt and all its outputs, [prompts].
            predicted: of these, those of the outputs, which are taken to be of one length.
            outputs: how many outputs each has.
        """
        total, said = (np.asarray(a, dtype=float) for a in (lengths, predicted))
        prompt, each = total - said, said / np.maximum(np.asarray(outputs, dtype=float), 1)
        pairs = prompt * (prompt + 1) / 2 + said * prompt + said * (each + 1) / 2
        return cls(float(total.sum()), float(pairs.sum()), float(said.sum()))

    def __add__(self, other: "Load") -> "Load":
        return Load(
            self.tokens + other.tokens, self.pairs + other.pairs, self.predicted + other.predicted
        )

    def __mul__(self, times: float) -> "Load":
        return Load(self.tokens * times, self.pairs * times, self.predicted * times)


def forward_flops(shape: Shape, load: Load, settings: FinetuningSettings | None = None) -> float:
    """Operations of a forward pass; the output layer at the predicted positions only.

    Args:
        settings: of a finetune whose adapter takes part; None: the base alone.
    """
    own = _adapter(shape, settings) if settings is not None else 0
    return (
        2 * (shape.weights + own) * load.tokens
        + 4 * shape.attention * load.pairs
        + 2 * shape.head * load.predicted
    )


def training_flops(shape: Shape, load: Load, settings: FinetuningSettings) -> float:
    """Operations of the passes of a training, forward and backward.

    Args:
        load: of all passes over the examples: epochs are counted in it.

    LoRA over a frozen base: the backward pass goes through the base to its activations only, and no
    further down than to the lowest adapted layer; each of the adapter's two products costs another
    for its weights and one for its input. ``full``: a product for the weights and one for the input
    of every layer. With gradient checkpointing, the layers are computed forward once more, but for
    the last product of each (see ``_ending``). The gradient of attention takes five products where
    its forward pass takes two, since the scores are computed again (Dao et al. 2022, arXiv
    2205.14135, appendix B). What DoRA adds is not counted.

    Raises FlopsError for a trainer of another kind.
    """
    if settings.trainer not in ("lora", "full"):
        raise FlopsError(f"what the trainer {settings.trainer!r} computes is not known")
    full = settings.trainer == "full"
    forward = forward_flops(shape, Load(load.tokens, load.pairs), settings)
    if settings.gradient_checkpointing:
        forward = 2 * forward - 2 * _ending(shape, settings) * load.tokens
    attention = 10 * shape.attention * load.pairs
    if full:
        products = 4 * shape.weights * load.tokens
        return forward + attention + products + (2 + 4) * shape.head * load.predicted
    still = _without_gradient(shape, settings.target_modules)
    adapted = shape.adapted(settings.target_modules)
    inputs = sum(shape.linear[name][0] for name in still if name in adapted)
    passed = shape.weights - sum(math.prod(shape.linear[name]) for name in still)
    own = 4 * _adapter(shape, settings) - 2 * settings.lora_rank * inputs
    products = (2 * passed + own) * load.tokens
    return forward + attention + products + (2 + 2) * shape.head * load.predicted


def _adapter(shape: Shape, settings: FinetuningSettings) -> int:
    """Weights of the adapter; none where all weights of the base are trained."""
    if settings.trainer != "lora":
        return 0
    names = shape.adapted(settings.target_modules)
    return settings.lora_rank * sum(sum(shape.linear[name]) for name in names)


def _without_gradient(shape: Shape, targets: Sequence[str]) -> list[str]:
    """The layers whose input needs no gradient: nothing that is trained lies below it."""
    names, adapted = list(shape.linear), shape.adapted(targets)
    if not adapted:
        return names
    first = names.index(adapted[0])
    block = adapted[0].rpartition(".")[0]
    companions = next((group for group in TOGETHER if _last(adapted[0]) in group), set())
    beside = [n for n in names[first:] if n.rpartition(".")[0] == block and _last(n) in companions]
    return list(dict.fromkeys([*names[: first + 1], *beside]))


def _ending(shape: Shape, settings: FinetuningSettings) -> int:
    """Weights of the last linear layer of each block, where what ends it is that product.

    torch stops to compute again at the last tensor that the backward pass needs (its
    ``set_checkpoint_early_stop``), which is the input of that layer, or nothing of it.
    """
    adapted = shape.adapted(settings.target_modules) if settings.trainer == "lora" else []
    last = {}
    for name in shape.linear:
        block = re.match(r".*?\.\d+\.", name)
        if block:
            last[block[0]] = name
    return sum(math.prod(shape.linear[name]) for name in last.values() if name not in adapted)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _ends(name: str, targets: Iterable[str]) -> bool:
    return any(name.endswith(f".{target}") for target in targets)


def shape_of(source: ModelSource, causal: bool = True) -> Shape:
    """The shape of a model, from its configuration.

    Args:
        causal: a language model with its output layer; else the model below its head, as one that
            embeds or rewards is.

    Raises:
        ModelError: the model is not there.
        FlopsError: not every token goes through all of its layers (experts, or an encoder and a
            decoder), or it has no attention of heads.
    """
    from transformers import AutoConfig

    from im_resources.language_model.loading import ModelError, locate

    place, revision, _ = locate(source)
    try:
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the configuration of {place!r}: {error}") from error
    return shape_from(config, causal)


def shape_from(config: Any, causal: bool = True) -> Shape:
    """The shape that a transformers configuration describes; see ``shape_of``."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    name = config.model_type
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    if config.is_encoder_decoder or any((getattr(config, e, 0) or 0) > 1 for e in experts):
        raise FlopsError(f"a {name} sends not every token through all of its layers")
    architecture = AutoModelForCausalLM if causal else AutoModel
    with torch.device("meta"):
        model = architecture.from_config(config)
    head = model.get_output_embeddings() if causal else None
    linear = {}
    for path, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, torch.nn.Linear):
            linear[path] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            rows, columns = module.weight.shape
            linear[path] = (rows, columns)
    if not causal:
        linear.pop("pooler.dense", None)  # of the first token alone
    text = config.get_text_config()
    try:
        heads, layers = text.num_attention_heads, text.num_hidden_layers
        size = getattr(text, "head_dim", None) or text.hidden_size // heads
    except AttributeError as error:
        raise FlopsError(
            f"the configuration of a {name} tells no attention heads: {error}"
        ) from error
    weights = 0 if head is None else head.weight.numel()
    return Shape(linear, layers * heads * size, weights)
