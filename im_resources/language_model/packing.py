"""Rows laid end to end in one sequence: no token is padding, and no row sees another.

Everything in a decoder but its attention works on tokens one by one, so only the attention has to
know where rows begin and end. It is put in its place through transformers' AttentionInterface, and
takes the rows from the keyword arguments of the forward pass. No mask is built: transformers asks
for none where the attention has no mask function of its own (``_preprocess_mask_arguments`` in
transformers/masking_utils.py).

On CUDA one call of flash attention with cumulative lengths (``torch.nn.attention.varlen``) serves
all rows; elsewhere each row is a call.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, compress
from typing import Any

import torch

from im_resources.language_model.attention import row_attention
from im_resources.language_model.prompts import Encoded
from im_resources.usage import count

ROWS = "rows_end_to_end"


class UnpackableError(RuntimeError):
    """An attention that is more than causal: its rows cannot be laid end to end like this."""


@dataclass(frozen=True)
class Rows:
    """Where the rows of a sequence are: their ``lengths``, in order."""

    lengths: tuple[int, ...]
    device: torch.device

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths)

    @cached_property
    def bounds(self) -> torch.Tensor:
        """Where each row starts, and the end of the last: int32 [rows + 1]."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self.device)


@dataclass(frozen=True)
class Packed:
    """Rows end to end, and where their response tokens are predicted.

    Shapes: ``input_ids`` and ``position_ids`` [1, tokens], positions from zero in every row;
    ``predictor`` and ``target`` [response tokens]: the token ``target`` is predicted from the
    hidden state at ``predictor``. ``parts``: of each part, its first token and the one after its
    last, and the same of its response tokens.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    rows: Rows
    predictor: torch.Tensor
    target: torch.Tensor
    parts: tuple[tuple[slice, slice], ...]


def pack(parts: Sequence[Sequence[Encoded]], device: torch.device) -> Packed:
    """Lay the rows of all parts end to end, those of a part beside each other.

    Raises ValueError for an instruction with several outputs, which needs a mask of its own.
    """
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    where: list[tuple[slice, slice]] = []
    for part in parts:
        first, first_target = len(ids), len(targets)
        for row in part:
            [output] = row.outputs
            said = [True] * len(output) if row.learned is None else row.learned
            begin = len(ids) + len(row.prompt) - 1
            predictors += compress(range(begin, begin + len(output)), said)
            targets += compress(output, said)
            ids += [*row.prompt, *output]
            positions += range(row.length)
            lengths.append(row.length)
        where.append((slice(first, len(ids)), slice(first_target, len(targets))))
    count(tokens=len(ids))

    def moved(values: list[int]) -> torch.Tensor:
        return torch.tensor(values).to(device, non_blocking=True)

    return Packed(
        moved(ids)[None],
        moved(positions)[None],
        Rows(tuple(lengths), device),
        moved(predictors),
        moved(targets),
        tuple(where),
    )


def packed_states(model: Any, packed: Packed) -> torch.Tensor:
    """Final hidden states of all tokens, [tokens, hidden]; ``model`` attends by rows."""
    states: torch.Tensor = model.get_decoder()(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        use_cache=False,
        rows=packed.rows,
    ).last_hidden_state
    return states[0]


def attends_by_rows(model: Any) -> bool:
    """Let ``model`` attend by rows from now on; False where it cannot be told to."""
    from transformers import AttentionInterface

    AttentionInterface.register(ROWS, attend)
    model.set_attn_implementation(ROWS)
    return bool(model.config._attn_implementation == ROWS)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    rows: Rows | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row; the signature is that of transformers' attentions.

    Args:
        query: [1, heads, tokens, head size]; key and value have as many heads, or a divisor of it.

    Returns [1, tokens, heads, head size].

    Raises UnpackableError where it would not be what the architecture asks for.
    """
    if rows is None or attention_mask is not None or dropout:
        raise UnpackableError(
            "this architecture does not pass on what its attention is called with"
        )
    more = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if sliding_window is not None and sliding_window < rows.longest:
        more.append("sliding_window")
    if more or not others.get("is_causal", True) or not getattr(module, "is_causal", True):
        raise UnpackableError(f"its attention is more than causal: {', '.join(more)}")
    # Flash attention of torch: half precision, heads of at most 256.
    if query.is_cuda and query.dtype != torch.float32 and query.shape[-1] <= 256 and _varlen():
        return _flash(query, key, value, rows, scaling), None
    return row_attention(query, key, value, rows.lengths, scaling), None


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Rows, scaling: float | None
) -> torch.Tensor:
    """All rows in one call, [1, tokens, heads, head size]."""
    function, known = _varlen()
    options: dict[str, Any] = {}
    if "window_size" in known:
        options["window_size"] = (-1, 0)
    if "is_causal" in known:  # torch 2.10
        options["is_causal"] = True
    if "scale" in known:
        options["scale"] = scaling
    elif scaling is not None:
        query = query * (scaling * query.shape[-1] ** 0.5)
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and "enable_gqa" in known:
        options["enable_gqa"] = True
    elif groups > 1:
        key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    longest, bounds = rows.longest, rows.bounds
    out: torch.Tensor = function(q, k, v, bounds, bounds, longest, longest, **options)
    return out[None]


@cache
def _varlen() -> Any:
    """torch's variable-length attention and the names of its arguments; None before torch 2.10."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn, frozenset(inspect.signature(varlen_attn).parameters)
