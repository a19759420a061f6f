"""Shapes of base models by their size, without a configuration or a weight of theirs."""

import re
from dataclasses import dataclass

from im_resources.language_model.flops import Shape

MINILM = 6 * (4 * 384**2 + 2 * 384 * 1536)  # weights of all-MiniLM-L6-v2 below its embeddings
MINILM_NUMBERS = 2 * 384  # of an example: its prompt and its response, side by side
# What the paper's profile reads beside the base: weights of its reward model (24 layers of 2048, a
# GPT-NeoX) and of the encoder of its UniEval (24 layers of 1024, a T5), which reads a text three
# times; what the decoder adds is little.
REWARD = 24 * 12 * 2048**2
UNIEVAL, QUESTIONS = 24 * 12 * 1024**2, 3


@dataclass(frozen=True)
class Model:
    """A base model, as far as it costs.

    Attributes:
        layers: blocks.
        hidden: numbers of a token between two blocks.
        embedded: weights of the token embeddings, where they are others than the output layer's.
    """

    name: str
    shape: Shape
    layers: int
    hidden: int
    embedded: int

    @property
    def parameters(self) -> int:
        """All weights but those of norms and biases."""
        return self.shape.weights + self.shape.head + self.embedded

    @classmethod
    def of(cls, name: str, shape: Shape) -> "Model":
        """A model of which the shape alone is known; its embeddings are taken to be its own.

        Raises ValueError where the shape's layers are in no numbered blocks.
        """
        blocks = {found[0] for n in shape.linear if (found := re.match(r".*?\.\d+\.", n))}
        if not blocks:
            raise ValueError(f"{name}: no numbered blocks of layers, such as layers.0.…")
        return cls(name, shape, len(blocks), next(iter(shape.linear.values()))[0], shape.head)


def decoder(
    name: str,
    layers: int,
    hidden: int,
    inner: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    tied: bool = False,
) -> Model:
    """A decoder of LLaMA's kind.

    Args:
        inner: width of the feed-forward network.
        tied: the token embeddings are the output layer's weights.
    """
    read = hidden // heads * kv_heads
    block = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, read),
        "self_attn.v_proj": (hidden, read),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    linear = {
        f"model.layers.{layer}.{part}": size
        for layer in range(layers)
        for part, size in block.items()
    }
    head = hidden * vocabulary
    shape = Shape(linear, layers * hidden, head)
    return Model(name, shape, layers, hidden, 0 if tied else head)


# The published configurations of SmolLM2-135M, Qwen2.5-0.5B and -1.5B, LLaMA-7B, Llama-3-8B and
# Llama-3-70B.
MODELS = {
    "135m": decoder("135m", 30, 576, 1536, 9, 3, 49152, tied=True),
    "0.5b": decoder("0.5b", 24, 896, 4864, 14, 2, 151936, tied=True),
    "1.5b": decoder("1.5b", 28, 1536, 8960, 12, 2, 151936, tied=True),
    "7b": decoder("7b", 32, 4096, 11008, 32, 32, 32000),
    "8b": decoder("8b", 32, 4096, 14336, 32, 8, 128256),
    "70b": decoder("70b", 80, 8192, 28672, 64, 8, 128256),
}
