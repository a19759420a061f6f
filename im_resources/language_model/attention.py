"""Causal attention row by row, for devices without variable-length flash attention."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

# Tokens of the longest row whose probabilities are kept for the backward pass.
KEPT = 512


def row_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    scaling: float | None,
) -> torch.Tensor:
    """Causal attention inside each of the rows that lie end to end.

    Args:
        query: [1, heads, tokens, head size]; key and value have as many heads, or a divisor of it.

    Returns [1, tokens, heads, head size].
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and max(lengths) <= KEPT:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        out: torch.Tensor = _Products.apply(query, key, value, list(lengths), scale)
        return out
    grouped = query.shape[1] != key.shape[1]
    # Not slices: the gradient of each would be as long as all rows together.
    parts = (t.split(list(lengths), dim=2) for t in (query, key, value))
    outs = [
        F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped
        ).transpose(1, 2)
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(outs, dim=1)


class _Products(torch.autograd.Function):
    """Attention by plain matrix products, which keeps its probabilities.

    On a CPU, the backward pass of torch's flash attention takes four times as long in bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: list[int],
        scale: float,
    ) -> torch.Tensor:
        _, heads, tokens, size = query.shape
        groups = heads // key.shape[1]
        out = query.new_empty((1, tokens, heads, size))
        future = torch.ones(max(lengths), max(lengths), dtype=torch.bool).triu(1)
        kept = []
        start = 0
        for length in lengths:
            q, k, v = (_row(t, start, length, key.shape[1]) for t in (query, key, value))
            scores = torch.bmm(q, k.transpose(1, 2)).view(-1, length, length).float().mul_(scale)
            scores.masked_fill_(future[:length, :length], -torch.inf)
            shares = scores.softmax(-1).to(query.dtype).view(-1, groups * length, length)
            mine = torch.bmm(shares, v)
            out[0, start : start + length] = mine.view(heads, length, size).transpose(0, 1)
            kept.append(shares)
            start += length
        ctx.save_for_backward(query, key, value, *kept)
        ctx.lengths, ctx.scale = lengths, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, *kept = ctx.saved_tensors
        heads = key.shape[1]
        found = [torch.empty_like(t) for t in (query, key, value)]
        start = 0
        for length, shares in zip(ctx.lengths, kept, strict=True):
            q, k, v = (_row(t, start, length, heads) for t in (query, key, value))
            grad = _row(grads[0].transpose(1, 2), start, length, heads)
            inner = torch.bmm(grad, v.transpose(1, 2)).float()
            shared = shares.float()
            inner -= (inner * shared).sum(-1, keepdim=True)
            scores = inner.mul_(shared).mul_(ctx.scale).to(query.dtype)
            mine = (
                torch.bmm(scores, k),
                torch.bmm(scores.transpose(1, 2), q),
                torch.bmm(shares.transpose(1, 2), grad),
            )
            for whole, part in zip(found, mine, strict=True):
                whole[0, :, start : start + length] = part.view(-1, length, whole.shape[-1])
            start += length
        return *found, None, None


def _row(tensor: torch.Tensor, start: int, length: int, heads: int) -> torch.Tensor:
    """One row, the queries that share a key beside each other: [heads, groups · length, size]."""
    row = tensor[0, :, start : start + length]
    return row.reshape(heads, -1, row.shape[-1])
