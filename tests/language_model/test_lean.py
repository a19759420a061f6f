"""Layers that are put in the place of an architecture's own give what those give."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
)
from transformers.models.llama import modeling_llama

from im_resources.language_model.lean import make_lean, rotate

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 97,
}


def made(config: PreTrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def outcome(model: Any) -> list[torch.Tensor]:
    """The logits of some rows, and the gradient of every weight that has one."""
    ids = torch.randint(3, 90, (2, 11), generator=torch.Generator().manual_seed(1))
    logits = model(ids).logits
    model.zero_grad()
    logits.float().square().mean().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SHAPE),
        LlamaConfig(**SHAPE, num_key_value_heads=2),
        Qwen3Config(**SHAPE, num_key_value_heads=2),
    ],
    ids=["llama", "llama-gqa", "qwen3"],
)
def test_outputs_and_gradients_stay(config: PreTrainedConfig) -> None:
    model = made(config)
    before = outcome(model)
    replaced = make_lean(model)
    assert any(name.endswith("Attention") for name in replaced)
    assert any(name.endswith("MLP") for name in replaced)
    for was, now in zip(before, outcome(model), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-4, atol=1e-6)


def test_a_rotation_of_another_kind_stays_its_own() -> None:
    """GPT-NeoX rotates a part of each head."""
    model = made(GPTNeoXConfig(**SHAPE))
    before = outcome(model)
    assert not make_lean(model)
    for was, now in zip(before, outcome(model), strict=True):
        assert torch.equal(now, was)


def test_another_model_of_the_architecture_keeps_its_own_rotation() -> None:
    own = modeling_llama.apply_rotary_pos_emb
    make_lean(made(LlamaConfig(**SHAPE)))
    assert modeling_llama.apply_rotary_pos_emb is own
    other = made(LlamaConfig(**SHAPE)).model.layers[0].self_attn
    assert "forward" not in vars(other)


def test_what_is_rotated_lies_in_memory_as_before() -> None:
    q = torch.randn(1, 7, 4, 8).transpose(1, 2)
    k = torch.randn(1, 7, 2, 8).transpose(1, 2)
    cos, sin = torch.randn(1, 7, 8), torch.randn(1, 7, 8)
    for was, now in zip((q, k), rotate(q, k, cos, sin), strict=True):
        assert now.stride() == was.stride()
