"""Rows laid end to end in one sequence: no token is padding, and no row sees another.

Everything in a decoder but its attention works on tokens one by one, so only the attention has to
know where rows begin and end. It is put in its place through transformers' AttentionInterface, and
takes the rows from the keyword arguments of the forward pass. No mask is built: transformers asks
for none where the attention has no mask function of its own (``_preprocess_mask_arguments`` in
transformers/masking_utils.py).

Without gradients, what rows begin with in common lies there once (``prefixes.py``): rows are then
cut into segments, and each attends to those before it as well.

On CUDA one call of flash attention with cumulative lengths (``torch.nn.attention.varlen``) serves
all rows; elsewhere each segment is a call.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, chain, compress, islice
from typing import Any

import torch
import torch.nn.functional as F

from im_resources.language_model.attention import row_attention
from im_resources.language_model.prefixes import Segment, segmented
from im_resources.language_model.prompts import Encoded
from im_resources.usage import count

ROWS = "rows_end_to_end"


class UnpackableError(RuntimeError):
    """An attention that is more than causal: its rows cannot be laid end to end like this."""


@dataclass(frozen=True)
class Rows:
    """The ``lengths`` of the segments that lie end to end, in order, and of each the numbers of
    those ``before`` it that it attends to as well: none of a whole row."""

    lengths: tuple[int, ...]
    device: torch.device
    before: tuple[tuple[int, ...], ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.seen)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each segment starts, and the end of the last."""
        return tuple(accumulate(self.lengths, initial=0))

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Tokens that the last token of each segment attends to."""
        if not self.before:
            return self.lengths
        both = zip(self.lengths, self.before, strict=True)
        return tuple(length + sum(self.lengths[k] for k in before) for length, before in both)

    @cached_property
    def bounds(self) -> torch.Tensor:
        """``starts`` as int32 [segments + 1]."""
        return torch.tensor(self.starts, dtype=torch.int32, device=self.device)

    @cached_property
    def key_bounds(self) -> torch.Tensor:
        """The same of the keys that each segment attends to, as ``keys`` lays them out."""
        bounds = [0, *accumulate(self.seen)]
        return torch.tensor(bounds, dtype=torch.int32, device=self.device)

    @cached_property
    def keys(self) -> torch.Tensor:
        """Which tokens' keys each segment attends to, one after the other, int64 [keys]."""
        runs = [
            torch.arange(self.starts[k], self.starts[k + 1])
            for number, before in enumerate(self.before)
            for k in (*before, number)
        ]
        return torch.cat(runs).to(self.device)

    @cached_property
    def masks(self) -> tuple[torch.Tensor | None, ...]:
        """Of each segment, which keys each token attends to, bool [length, seen]; None: causally,
        to the segment alone."""
        sizes = zip(self.lengths, self.seen, strict=True)
        return tuple(
            None
            if seen == length
            else torch.ones(length, seen, dtype=torch.bool, device=self.device).tril(seen - length)
            for length, seen in sizes
        )


@dataclass(frozen=True)
class Packed:
    """Rows end to end, and where their response tokens are predicted.

    Shapes: ``input_ids`` and ``position_ids`` [1, tokens], positions from zero in every row;
    ``predictor`` and ``target`` [response tokens], in the order of the rows and their outputs: the
    token ``target`` is predicted from the hidden state at ``predictor``. ``parts``: of each part,
    its first token and the one after its last, and the same of its response tokens.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    rows: Rows
    predictor: torch.Tensor
    target: torch.Tensor
    parts: tuple[tuple[slice, slice], ...]

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return self.input_ids.numel()


def pack(parts: Sequence[Sequence[Encoded]], device: torch.device, share: bool = False) -> Packed:
    """Lay the rows of all parts end to end, those of a part beside each other.

    Args:
        share: what rows of a part begin with in common lies there once; else each row is whole, and
            an instruction has one output.

    Raises ValueError for an instruction with several outputs that are not shared.
    """
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    seen_before: list[tuple[int, ...]] = []
    predictors: list[int] = []
    targets: list[int] = []
    where: list[tuple[slice, slice]] = []
    for part in parts:
        first, first_target, number = len(ids), len(targets), len(lengths)
        if not share and any(len(row.outputs) != 1 for row in part):
            raise ValueError("an instruction with several outputs is packed with share=True only")
        whole = [(*row.prompt, *output) for row in part for output in row.outputs]
        segments, paths = (
            segmented(whole)
            if share
            else ([Segment(tokens) for tokens in whole], [(k,) for k in range(len(whole))])
        )
        begins: list[int] = []
        for segment in segments:
            begins.append(len(ids))
            start = sum(len(segments[k].tokens) for k in segment.before)
            ids += segment.tokens
            positions += range(start, start + len(segment.tokens))
            lengths.append(len(segment.tokens))
            seen_before.append(tuple(number + k for k in segment.before))
        outputs = [(row, output) for row in part for output in row.outputs]
        for (row, output), path in zip(outputs, paths, strict=True):
            said = [True] * len(output) if row.learned is None else row.learned
            runs = [range(begins[k], begins[k] + len(segments[k].tokens)) for k in path]
            begin = len(row.prompt) - 1
            places = islice(chain(*runs), begin, begin + len(output))
            predictors += compress(places, said)
            targets += compress(output, said)
        where.append((slice(first, len(ids)), slice(first_target, len(targets))))
    count(tokens=len(ids))

    def moved(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)

    return Packed(
        moved(ids)[None],
        moved(positions)[None],
        Rows(tuple(lengths), device, tuple(seen_before) if any(seen_before) else ()),
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
    if rows.before:
        return segment_attention(query, key, value, rows, scaling), None
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
    keys = rows.bounds
    if rows.before:
        keys = rows.key_bounds
        k, v = (t.index_select(0, rows.keys) for t in (k, v))
    # The last query of a segment is level with the last key: causal is counted from the end.
    longest = max(rows.lengths), rows.longest
    out: torch.Tensor = function(q, k, v, rows.bounds, keys, *longest, **options)
    return out[None]


def segment_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Rows, scaling: float | None
) -> torch.Tensor:
    """Causal attention of each segment to itself and those before it; shapes as of ``attend``."""
    grouped = query.shape[1] != key.shape[1]
    q, k, v = (t.split(rows.lengths, dim=2) for t in (query, key, value))
    outs = []
    for number, (mask, before) in enumerate(zip(rows.masks, rows.before, strict=True)):
        mine = (*before, number)
        outs.append(
            F.scaled_dot_product_attention(
                q[number],
                torch.cat([k[i] for i in mine], dim=2) if before else k[number],
                torch.cat([v[i] for i in mine], dim=2) if before else v[number],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=grouped,
            ).transpose(1, 2)
        )
    return torch.cat(outs, dim=1)


@cache
def _varlen() -> Any:
    """torch's variable-length attention and the names of its arguments; None before torch 2.10."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn, frozenset(inspect.signature(varlen_attn).parameters)
