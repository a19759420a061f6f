"""The same layers, with less kept for the backward pass and fewer passes over memory.

Each is put in its place only where it gives what the architecture's own layer gives, which is
tried on random numbers: another architecture's layer of the same make-up stays as it is.
"""

import logging
from collections.abc import Callable
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import torch
import torch.nn.functional as F

# The name of the rotation in the files of architectures.
ROTATION = "apply_rotary_pos_emb"


def make_lean(model: Any) -> list[str]:
    """Replace what can be; the kinds of layers that were."""
    replaced: set[str] = set()
    for module in model.modules():
        lean = _lean(module)
        if lean is not None and _same(module, lean, model):
            module.forward = lean
            replaced.add(type(module).__name__)
        if _rotates_alike(module, model):
            module.forward = _rotating_leanly(module)
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
    return bool(error < _allowed(model.dtype))


def _allowed(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 1e-2


class _SwiGLU(torch.autograd.Function):
    """silu(gate) · up (Shazeer 2020, arXiv:2002.05202), keeping gate and up only."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        fused = _fused_swiglu() if gate.is_cuda else None
        return F.silu(gate).mul_(up) if fused is None else fused[0](gate, up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        fused = _fused_swiglu() if gate.is_cuda else None
        if fused is not None:
            return fused[1](grads[0], gate, up), fused[2](grads[0], gate)
        grad_gate = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return grad_gate, F.silu(gate).mul_(grads[0])


@cache
def _fused_swiglu() -> tuple[Callable[..., torch.Tensor], ...] | None:
    """One CUDA kernel each: silu(gate) · up, its gradient of gate, and of up. None without NVRTC.

    https://docs.pytorch.org/docs/stable/generated/torch.cuda.jiterator._create_jit_fn.html
    """
    sources = (
        "template <typename T> T swiglu(T g, T u) { return g / (T(1) + exp(-g)) * u; }",
        "template <typename T> T swiglu_gate(T d, T g, T u) {"
        " T s = T(1) / (T(1) + exp(-g)); return d * u * s * (T(1) + g * (T(1) - s)); }",
        "template <typename T> T swiglu_up(T d, T g) { return d * g / (T(1) + exp(-g)); }",
    )
    try:
        functions = tuple(torch.cuda.jiterator._create_jit_fn(source) for source in sources)
        one = torch.ones(1, device="cuda")
        for number, function in zip((2, 3, 2), functions, strict=True):
            function(*[one] * number)
    except Exception as error:  # a torch without its runtime compiler: slower, and the same
        logging.getLogger(__name__).info("no fused SwiGLU: %s", error)
        return None
    return functions


def _rotates_alike(module: Any, model: Any) -> bool:
    """Whether it is an attention that rotates by halves, as LLaMA's does."""
    own = _rotation(module)
    size = getattr(module, "head_dim", None)
    if own is None or not isinstance(size, int) or size % 2:
        return False
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 4, 7, size), (1, 2, 7, size), (1, 7, size), (1, 7, size))
    q, k, cos, sin = (
        torch.randn(shape, generator=generator).to(model.device, model.dtype) for shape in shapes
    )
    try:
        with torch.no_grad():
            want, got = own(q, k, cos, sin), rotate(q, k, cos, sin)
        return all(
            w.shape == g.shape
            and w.dtype == g.dtype
            and bool((g - w).float().norm() <= _allowed(model.dtype) * w.float().norm())
            for w, g in zip(want, got, strict=True)
        )
    except (TypeError, ValueError, RuntimeError):  # it is called in another way
        return False


def _rotation(module: Any) -> Callable[..., Any] | None:
    """What the module's forward pass calls to rotate queries and keys, in most architectures."""
    forward = getattr(type(module), "forward", None)
    if not isinstance(forward, FunctionType) or ROTATION not in forward.__code__.co_names:
        return None
    return forward.__globals__.get(ROTATION)


def _rotating_leanly(module: Any) -> Callable[..., Any]:
    """The module's own forward pass with ``rotate`` for its rotation; no other model's is touched.

    The rotation is a function of the architecture's file, and no part of a module that could be
    replaced.
    """
    forward: Any = type(module).forward
    names = {**forward.__globals__, ROTATION: rotate}
    lean = FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    lean.__kwdefaults__ = forward.__kwdefaults__
    return MethodType(lean, module)


def rotate(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864), by halves; see _Rotary.

    Shapes: q [rows, heads, tokens, size], k the same with its heads; cos, sin [rows, tokens, size].
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _Rotary.apply(q, cos, sin), _Rotary.apply(k, cos, sin)


class _Rotary(torch.autograd.Function):
    """x · cos + (−x₂, x₁) · sin, in x's own order in memory.

    Written out, this negates, joins, multiplies twice and adds, and what comes out lies head by
    head, so that the attention copies it once more.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        out = torch.mul(x, cos, out=torch.empty_like(x))
        out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        out[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        half = cos.shape[-1] // 2
        grad = grads[0]
        out = torch.mul(grad, cos, out=torch.empty_like(grad))
        out[..., :half].addcmul_(grad[..., half:], sin[..., half:])
        out[..., half:].addcmul_(grad[..., :half], sin[..., :half], value=-1)
        return out, None, None
