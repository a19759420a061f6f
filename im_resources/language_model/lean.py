"""The same layers, with less kept for the backward pass and fewer passes over memory.

Each is put in its place only where it gives what the architecture's own layer gives, which is
tried on random numbers: another architecture's layer of the same make-up stays as it is.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F


def make_lean(model: Any) -> list[str]:
    """Replace what can be; the kinds of layers that were."""
    replaced: set[str] = set()
    for module in model.modules():
        lean = _lean(module)
        if lean is not None and _same(module, lean, model):
            module.forward = lean
            replaced.add(type(module).__name__)
    return sorted(replaced)


def _lean(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    parts = ("gate_proj", "up_proj", "down_proj", "act_fn")
    if all(hasattr(module, name) for name in parts):
        return lambda x: module.down_proj(_SwiGLU.apply(module.gate_proj(x), module.up_proj(x)))
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    is_norm = type(module).__name__.endswith("RMSNorm") and eps is not None
    # One kernel on a GPU; on a CPU, torch takes as many steps as transformers.
    if is_norm and isinstance(weight, torch.Tensor) and weight.is_cuda:
        return lambda x: F.rms_norm(x, weight.shape, weight, eps)
    return None


def _same(module: Any, lean: Callable[[torch.Tensor], torch.Tensor], model: Any) -> bool:
    first = module.gate_proj if hasattr(module, "gate_proj") else module
    first = getattr(first, "base_layer", first)
    size = first.in_features if hasattr(first, "in_features") else module.weight.shape[-1]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 7, size), generator=generator).to(model.device, model.dtype)
    with torch.no_grad():
        want, got = module(x), lean(x)
    if want.shape != got.shape or want.dtype != got.dtype:
        return False
    error = (got - want).float().norm() / want.float().norm()
    return bool(error < (1e-5 if model.dtype == torch.float32 else 1e-2))


class _SwiGLU(torch.autograd.Function):
    """silu(gate) · up (Shazeer 2020, arXiv:2002.05202), keeping gate and up only."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return grad_gate, F.silu(gate).mul_(grads[0])
