"""Cross-entropy of response tokens, and what else one forward pass gives away for free."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from im_resources.language_model.batching import Batch, by_length, collate
from im_resources.language_model.loading import replica_of
from im_resources.language_model.packable import attend_by_rows, tell_padded
from im_resources.language_model.packing import UnpackableError, pack, packed_states
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.side_by_side import stop_point

# Response positions projected to the vocabulary at once: bounds the logits (49k × 512 × 4 B are
# 100 MB).
HEAD_CHUNK = 512

OnBatch: TypeAlias = Callable[[int, int, int], None]


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
    on_batch: OnBatch | None = None,
) -> OutputLosses:
    """Losses of every response of ``encoded`` under ``model``, without gradients.

    Rows lie end to end, and what they begin with in common is computed once (``packing.py``). Where
    an architecture cannot be computed like that they are padded, and a warning says so.

    Args:
        tokens_per_batch: most tokens in one forward pass; an instruction longer than that, with all
            its outputs, is a pass of its own.
        layer: also pool the hidden states after this decoder layer (1 = after the first).
        on_batch: called after each batch with (batch, batches, tokens of the batch).
    """
    model.eval()
    forward: Forward = Padded(model, encoded)
    replica = replica_of(model)  # the model itself goes on as it is
    try:
        attend_by_rows(replica, max((e.length for e in encoded), default=0))
        forward = Packing(replica, encoded)
    except UnpackableError as error:
        tell_padded(type(model).__name__, "evaluated on padded batches", str(error))
    [losses] = losses_of_each(forward, encoded, tokens_per_batch, layer, on_batch)
    return losses


def losses_of_each(
    forward: "Forward",
    encoded: Sequence[Encoded],
    tokens_per_batch: int,
    layer: int | None = None,
    on_batch: OnBatch | None = None,
) -> list[OutputLosses]:
    """``output_losses`` of each model that ``forward`` passes tokens through."""
    number = forward.models
    counts = [len(e.outputs) for e in encoded]
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    tokens = np.array([sum(said) for e in encoded for said in learned_of(e)], dtype=int)
    nll = np.zeros((number, offset[-1]))
    pooled: np.ndarray | None = None
    room = max(1, tokens_per_batch // number)
    plan = list(by_length(encoded, room, padded=isinstance(forward, Padded)))
    with forward.reading(layer):
        for batch, items in enumerate(plan, 1):
            stop_point()
            slots = np.concatenate([np.arange(offset[i], offset[i + 1]) for i in items])
            slot = np.repeat(slots, tokens[slots])
            with torch.inference_mode():
                losses, states, computed = forward(items)
            for mine, found in zip(nll, losses.double().cpu().numpy(), strict=True):
                np.add.at(mine, slot, found)
            if states is not None:
                if pooled is None:
                    pooled = np.zeros((offset[-1], states.shape[-1]))
                part = torch.from_numpy(pooled)
                part.index_add_(0, torch.from_numpy(slot), states.float().cpu().double())
            if on_batch is not None:
                on_batch(batch, len(plan), computed)
    item = np.repeat(np.arange(len(encoded)), counts)
    output = np.concatenate([np.arange(c) for c in counts]) if counts else np.zeros(0, int)
    shares = np.maximum(tokens, 1)[:, None]
    return [
        OutputLosses(item, output, each, tokens, None if pooled is None else pooled / shares)
        for each in nll
    ]


def learned_of(encoded: Encoded) -> list[Sequence[bool]]:
    """Of each output, the tokens that count."""
    if encoded.learned is not None:
        return [encoded.learned]
    return [[True] * len(output) for output in encoded.outputs]


class Forward(ABC):
    """Passes instructions through one model, or through several that share their frozen layers."""

    def __init__(self, model: Any, encoded: Sequence[Encoded], models: int = 1) -> None:
        self.model, self.encoded, self.models = model, encoded, models
        self.layer: torch.Tensor | None = None

    @abstractmethod
    def __call__(self, items: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        """Of each response token of ``items``, in order: its loss under each model, float32
        [models, tokens], and the state of the layer that is read, [models · tokens, hidden]; and
        how many tokens were computed."""

    @contextmanager
    def reading(self, layer: int | None) -> Iterator[None]:
        """Keep the hidden states after this layer, of the last pass."""
        if not layer:
            yield
            return
        hook = self.model.get_decoder().layers[layer - 1].register_forward_hook(self._keep)
        try:
            yield
        finally:
            hook.remove()

    def _keep(self, _module: Any, _args: Any, out: Any) -> None:
        self.layer = out[0] if isinstance(out, tuple) else out

    def _of_each(self, found: torch.Tensor) -> torch.Tensor:
        """[models × tokens, …] as [models, tokens, …]."""
        return found.view(self.models, len(found) // self.models, *found.shape[1:])


class Padded(Forward):
    """Rows of like length in one rectangle."""

    def __call__(self, items: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        batch = collate(items, self.encoded, self.model.device)
        losses = token_nll(self.model, hidden_states(self.model, batch), batch.target)
        read = None if self.layer is None else self.layer[batch.row, batch.predictor]
        return self._of_each(losses), read, batch.tokens


class Packing(Forward):
    """Rows end to end, through a model that attends by rows.

    Args:
        prepare: told where each model's tokens are, before the pass over them.
    """

    def __init__(
        self,
        model: Any,
        encoded: Sequence[Encoded],
        models: int = 1,
        prepare: Callable[[Sequence[slice]], None] | None = None,
    ) -> None:
        super().__init__(model, encoded, models)
        self.prepare = prepare

    def __call__(self, items: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        rows = [self.encoded[i] for i in items]
        packed = pack([rows] * self.models, self.model.device, share=True)
        if self.prepare is not None:
            self.prepare([tokens for tokens, _ in packed.parts])
        states = packed_states(self.model, packed).index_select(0, packed.predictor)
        losses = token_nll(self.model, states, packed.target)
        read = None if self.layer is None else self.layer[0].index_select(0, packed.predictor)
        return self._of_each(losses), read, packed.tokens
