"""Cross-entropy of a frozen output layer, without the [tokens, vocabulary] matrix it goes through.

The gradient with respect to the hidden states is computed along with the loss, chunk by chunk, so
that no logits are kept for the backward pass (as Liger Kernel does: Hsu et al. 2024,
arXiv:2410.10989, section 3.2). The output layer itself gets no gradient.
"""

from typing import Any

import torch

# Elements of a chunk of logits: in float32, 100 MB on a CPU and 1 GB on a GPU.
CHUNK = {"cpu": 2**25 * 3 // 4, "cuda": 2**28}


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        target: torch.Tensor,
        share: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        nll = torch.empty(len(target), dtype=torch.float32, device=states.device)
        gradient = torch.empty_like(states)
        rows = max(1, CHUNK.get(states.device.type, CHUNK["cpu"]) // len(weight))
        for start in range(0, len(target), rows):
            part = slice(start, start + rows)
            logits = torch.nn.functional.linear(states[part], weight, bias)
            shares = logits.log_softmax(-1, dtype=torch.float32)
            answer = target[part, None]
            nll[part] = -shares.gather(-1, answer)[:, 0]
            shares.exp_().scatter_add_(-1, answer, shares.new_full(answer.shape, -1.0))
            torch.mm(shares.to(weight.dtype), weight, out=gradient[part])
            gradient[part] *= share[part, None].to(gradient.dtype)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(nll)
        return (nll * share).sum(), nll

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        [gradient] = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None, None, None


def linear_cross_entropy(
    head: torch.nn.Linear, states: torch.Tensor, target: torch.Tensor, share: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of ``target`` under ``head(states)``: weighted by ``share`` and summed, and each.

    Args:
        states: [response tokens, hidden].
        target, share: [response tokens]; ``share`` is float32.

    Returns the sum, differentiable with respect to ``states``, and the negative log-likelihood of
    each target in nats, float32 [response tokens], which is not.
    """
    total, nll = _LinearCrossEntropy.apply(states, head.weight, head.bias, target, share)
    return total, nll
