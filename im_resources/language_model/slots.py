"""One forward pass for several adapters: every adapter works on its own slice of the tokens.

The frozen layer sees all tokens in one product. What an adapter adds, it adds to its own slice,
and no number of one adapter reaches another's: not even a NaN.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional as F


@dataclass
class Slots:
    """Who works on which tokens of the pass under way: the layers by name, and the slice."""

    parts: list[tuple[dict[str, Any], slice]] = field(default_factory=list)


class SlottedLayer(nn.Module):
    """A frozen linear layer with the adapters of the slots beside it."""

    def __init__(self, base_layer: nn.Module, name: str, slots: Slots) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.name = name
        self.slots = slots

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output with what each adapter adds; x is [1, tokens, in features]."""
        base: Any = self.base_layer
        parts = [(layers[self.name], part) for layers, part in self.slots.parts]
        if not parts:
            return base(x)
        if any(layer.lora_variant for layer, _ in parts):
            return _by_peft(parts, x, base(x))
        weights = [w for layer, _ in parts for w in _weights(layer)]
        scalings = [layer.scaling[layer.active_adapter[0]] for layer, _ in parts]
        where = [part for _, part in parts]
        # A quantized layer has a backward pass of its own; a plain one's is done along with ours.
        plain = type(base) is nn.Linear
        frozen = (None, base.weight, base.bias) if plain else (base(x)[0], None, None)
        added: torch.Tensor = _LowRank.apply(x[0], *frozen, where, scalings, *weights)
        return added[None]


def lora_layers(model: Any) -> dict[str, Any]:
    """The adapter's layers in a PEFT model's base, by the name of the layer they are beside."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}


def can_be_slotted(layer: Any) -> bool:
    """Whether an adapter's layer is a low-rank product, or DoRA's, beside a linear layer."""
    [name] = layer.active_adapter
    known = {"Linear", "Linear8bitLt", "Linear4bit"}
    variant = type(layer.lora_variant.get(name)).__name__
    plain = not layer.lora_bias[name] and isinstance(layer.lora_dropout[name], nn.Identity)
    return type(layer).__name__ in known and plain and variant in ("NoneType", "DoraLinearVariant")


def _weights(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    [name] = layer.active_adapter
    return layer.lora_A[name].weight, layer.lora_B[name].weight


def _by_peft(parts: list[tuple[Any, slice]], x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """The output as PEFT's own variants of LoRA compute it (here: DoRA), slice by slice."""
    outs = []
    for layer, part in parts:
        [name] = layer.active_adapter
        mine = layer._cast_input_dtype(x[:, part], layer.lora_A[name].weight.dtype)
        outs.append(
            layer.lora_variant[name].forward(
                layer, active_adapter=name, x=mine, result=result[:, part]
            )
        )
    return torch.cat(outs, dim=1).to(result.dtype)


class _LowRank(torch.autograd.Function):
    """The frozen layer's output with scaling · B A x added to the slice of each adapter.

    Given either the frozen ``weight`` and ``bias``, or its ``result``, which is then written to.
    The slices are all tokens. The products are in the precision of the activations, as under
    autocast; the weights and their gradients keep their own. Kept for the backward pass: x, which
    its neighbours keep as well, and A x, which is small.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        result: torch.Tensor | None,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        parts: list[slice],
        scalings: list[float],
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        if result is None:
            assert weight is not None
            result = F.linear(x, weight, bias)
        else:
            result = result.detach()
        inner = []
        for part, scaling, a, b in zip(parts, scalings, weights[::2], weights[1::2], strict=True):
            low = x[part] @ a.to(x.dtype).T
            if result.dtype == x.dtype:
                result[part].addmm_(low, b.to(x.dtype).T, alpha=scaling)
            else:
                result[part] += (low @ b.to(x.dtype).T * scaling).to(result.dtype)
            inner.append(low)
        ctx.parts, ctx.scalings = parts, scalings
        ctx.save_for_backward(x, weight, *inner, *weights)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        [grad], parts = grads, ctx.parts
        x, frozen, *kept = ctx.saved_tensors
        inner, weights = kept[: len(parts)], kept[len(parts) :]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(x) if frozen is None else grad.to(frozen.dtype) @ frozen
        found: list[torch.Tensor] = []
        for k, (part, scaling) in enumerate(zip(parts, ctx.scalings, strict=True)):
            a, b = weights[2 * k], weights[2 * k + 1]
            mine = grad[part].to(x.dtype)
            low = mine @ b.to(x.dtype) * scaling
            found += [(low.T @ x[part]).to(a.dtype), (mine.T @ inner[k] * scaling).to(b.dtype)]
            if grad_x is not None:
                grad_x[part].addmm_(low, a.to(x.dtype))
        return grad_x, grad if frozen is None else None, None, None, None, None, *found
