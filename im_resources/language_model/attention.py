"""Causal attention row by row, for devices without variable-length flash attention."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


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
