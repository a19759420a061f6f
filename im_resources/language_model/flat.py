"""All weights of a training in one piece of memory: one operation clips, moves or clears them all.

An adapter has hundreds of small tensors, and AdamW a dozen operations for each.
"""

from collections.abc import Sequence

import torch


class FlatWeights:
    """Takes over the memory of parameters, and of their gradients, until they are released.

    ``flat``: one parameter a dtype, [elements], of which the given ones are views.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.flat: list[torch.nn.Parameter] = []
        for dtype in dict.fromkeys(p.dtype for p in self.parameters):
            same = [p for p in self.parameters if p.dtype == dtype]
            flat = torch.nn.Parameter(torch.cat([p.detach().reshape(-1) for p in same]))
            flat.grad = torch.zeros_like(flat)
            sizes = [p.numel() for p in same]
            with torch.no_grad():
                pieces = zip(same, flat.split(sizes), flat.grad.split(sizes), strict=True)
                for parameter, piece, gradient in pieces:
                    parameter.data = piece.view(parameter.shape)
                    parameter.grad = gradient.view(parameter.shape)
            self.flat.append(flat)

    def zero_grad(self) -> None:
        """Clear all gradients, in place."""
        for flat in self.flat:
            assert flat.grad is not None
            flat.grad.zero_()

    def release(self) -> None:
        """Give each parameter memory of its own, without gradients."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()
            parameter.grad = None
        self.flat = []
