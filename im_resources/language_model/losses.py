"""Cross-entropy of response tokens, and what else one forward pass gives away for free."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from im_resources.language_model.batching import Batch, by_length, collate
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.side_by_side import stop_point

# Response positions projected to the vocabulary at once: bounds the logits (49k × 512 × 4 B are
# 100 MB).
HEAD_CHUNK = 512


@dataclass(frozen=True)
class OutputLosses:
    """Per response, in the order of the items and their outputs.

    ``item``, ``output``: which response; ``nll``: summed negative log-likelihood (nats);
    ``tokens``: how many; ``pooled`` [responses, hidden]: mean hidden state of the chosen layer over
    the positions that predict the response, or None.
    """

    item: np.ndarray
    output: np.ndarray
    nll: np.ndarray
    tokens: np.ndarray
    pooled: np.ndarray | None = None


def hidden_states(model: Any, batch: Batch) -> torch.Tensor:
    """Final hidden states at the response's predicting positions, [response tokens, hidden]."""
    states = model.get_decoder()(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.mask,
        use_cache=False,
    ).last_hidden_state
    return states[batch.row, batch.predictor]


def token_nll(model: Any, states: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target, [response tokens], in float32.

    The vocabulary projection runs at response positions only (a fifth of a small model's work).
    """
    head = model.get_output_embeddings()
    return torch.cat(
        [
            F.cross_entropy(head(states[k : k + HEAD_CHUNK]).float(), t, reduction="none")
            for k in range(0, len(target), HEAD_CHUNK)
            for t in (target[k : k + HEAD_CHUNK],)
        ]
    )


def output_losses(
    model: Any,
    encoded: Sequence[Encoded],
    tokens_per_batch: int,
    layer: int | None = None,
    on_batch: Callable[[int, int, int], None] | None = None,
) -> OutputLosses:
    """Losses of every response of ``encoded`` under ``model``, without gradients.

    Args:
        layer: also pool the hidden states after this decoder layer (1 = after the first).
        on_batch: called after each batch with (batch, batches, tokens of the batch).
    """
    counts = [len(e.outputs) for e in encoded]
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    nll, tokens = np.zeros(offset[-1]), np.zeros(offset[-1], dtype=int)
    pooled: np.ndarray | None = None
    model.eval()
    captured: list[torch.Tensor] = []
    hook = (
        model.get_decoder()
        .layers[layer - 1]
        .register_forward_hook(
            lambda _m, _a, out: captured.append(out[0] if isinstance(out, tuple) else out)
        )
        if layer
        else None
    )
    try:
        plan = list(by_length(encoded, tokens_per_batch))
        for number, items in enumerate(plan, 1):
            stop_point()
            batch = collate(items, encoded, model.device)
            with torch.inference_mode():
                losses = token_nll(model, hidden_states(model, batch), batch.target)
            slot = torch.from_numpy(offset[list(items)])[batch.row.cpu()] + batch.output.cpu()
            np.add.at(nll, slot.numpy(), losses.double().cpu().numpy())
            np.add.at(tokens, slot.numpy(), 1)
            if captured:
                states = captured.pop()[batch.row, batch.predictor].float().cpu().numpy()
                if pooled is None:
                    pooled = np.zeros((offset[-1], states.shape[1]))
                np.add.at(pooled, slot.numpy(), states)
            if on_batch is not None:
                on_batch(number, len(plan), batch.tokens)
    finally:
        if hook is not None:
            hook.remove()
    return OutputLosses(
        item=np.repeat(np.arange(len(encoded)), counts),
        output=np.concatenate([np.arange(c) for c in counts]) if counts else np.zeros(0, int),
        nll=nll,
        tokens=tokens,
        pooled=None if pooled is None else pooled / np.maximum(tokens, 1)[:, None],
    )
