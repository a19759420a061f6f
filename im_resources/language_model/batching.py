"""From encoded instructions to padded tensors: few wasted tokens, each prompt computed once.

For architectures that cannot be packed (``packing.py``), and for trainers of their own loop.

Right padding under causal attention needs no mask. An instruction with several reference outputs is
laid out as ``prompt, output 1, output 2, …`` in one row: every output continues the positions of
the prompt and attends to the prompt and to itself only, so its loss equals that of a row of its own
while the prompt is computed once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import torch

from im_resources.language_model.prompts import Encoded
from im_resources.usage import count


@dataclass(frozen=True)
class Batch:
    """Padded rows and where their response tokens are predicted.

    Shapes: ``input_ids`` and ``position_ids`` [rows, width]; ``mask`` [rows, 1, width, width] bool,
    or None where plain causal attention is right; ``row``, ``predictor``, ``target``, ``item`` and
    ``output`` [response tokens]: the token ``target`` of output ``output`` of the batch's item
    ``item`` is predicted from the hidden state at (``row``, ``predictor``).
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor | None
    row: torch.Tensor
    predictor: torch.Tensor
    target: torch.Tensor
    output: torch.Tensor
    items: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.input_ids.numel()


def collate(items: Sequence[int], encoded: Sequence[Encoded], device: torch.device) -> Batch:
    """Pad the given items of ``encoded`` into one batch (row k holds item ``items[k]``)."""
    chosen = [encoded[i] for i in items]
    width = max(e.length for e in chosen)
    ids = torch.zeros((len(chosen), width), dtype=torch.long)
    positions = torch.zeros_like(ids)
    count(tokens=ids.numel())
    shared = any(len(e.outputs) > 1 for e in chosen)
    mask = torch.zeros((len(chosen), 1, width, width), dtype=torch.bool) if shared else None
    rows: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    outputs: list[int] = []
    for k, e in enumerate(chosen):
        cut = len(e.prompt)
        ids[k, :cut] = torch.tensor(e.prompt)
        positions[k, :cut] = torch.arange(cut)
        if mask is not None:
            mask[k, 0] = torch.eye(width, dtype=torch.bool)  # padding sees itself: no empty row
            mask[k, 0, :cut, :cut] = torch.ones(cut, cut, dtype=torch.bool).tril()
        start = cut
        for j, out in enumerate(e.outputs):
            stop = start + len(out)
            ids[k, start:stop] = torch.tensor(out)
            positions[k, start:stop] = torch.arange(cut, cut + len(out))
            if mask is not None:
                mask[k, 0, start:stop, :cut] = True
                mask[k, 0, start:stop, start:stop] = torch.ones(
                    len(out), len(out), dtype=torch.bool
                ).tril()
            said = [True] * len(out) if e.learned is None else e.learned
            before = [cut - 1, *range(start, stop - 1)][: len(out)]
            rows += [k] * sum(said)
            predictors += compress(before, said)
            targets += compress(out, said)
            outputs += [j] * sum(said)
            start = stop
        positions[k, start:] = torch.arange(width - start)
    return Batch(
        input_ids=ids.to(device),
        position_ids=positions.to(device),
        mask=None if mask is None else mask.to(device),
        row=torch.tensor(rows, device=device),
        predictor=torch.tensor(predictors, device=device),
        target=torch.tensor(targets, device=device),
        output=torch.tensor(outputs, device=device),
        items=tuple(items),
    )


def by_length(
    encoded: Sequence[Encoded], tokens_per_batch: int, padded: bool = True
) -> Iterator[list[int]]:
    """Cut all items into batches of similar length, each at most ``tokens_per_batch``.

    An item longer than that is a batch of its own. Longest first, so that memory peaks early.

    Args:
        padded: every item of a batch counts as many tokens as its longest.
    """
    order = sorted(range(len(encoded)), key=lambda i: (-encoded[i].length, i))
    batch: list[int] = []
    tokens = 0
    for i in order:
        length = encoded[batch[0] if batch and padded else i].length
        if batch and tokens + length > tokens_per_batch:
            yield batch
            batch, tokens, length = [], 0, encoded[i].length
        batch.append(i)
        tokens += length
    if batch:
        yield batch


def shuffled(
    encoded: Sequence[Encoded], batch_size: int, epochs: int, generator: torch.Generator
) -> list[list[int]]:
    """The training batches of all epochs: random, yet similar in length inside a batch.

    Each epoch is a fresh permutation; inside windows of eight batches the items are sorted by
    length before they are cut into batches, and the batches are shuffled again (random batches
    would spend nearly half of their tokens on padding).
    """
    plan: list[list[int]] = []
    window = 8 * batch_size
    for _ in range(epochs):
        order = torch.randperm(len(encoded), generator=generator).tolist()
        epoch: list[list[int]] = []
        for start in range(0, len(order), window):
            part = sorted(order[start : start + window], key=lambda i: encoded[i].length)
            epoch += [part[k : k + batch_size] for k in range(0, len(part), batch_size)]
        plan += [epoch[k] for k in torch.randperm(len(epoch), generator=generator).tolist()]
    return plan
