"""Small real models on disk, a few examples, and the loss as plain transformers computes it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
)

from im_resources.language_model.converted import dequantized
from im_resources.language_model.loading import locate
from im_resources.language_model.prompts import Encoded, encode
from im_resources.study import load_study
from tests.killing import digest_of

EXAMPLES = [
    ("Name the capital of France.", "", "Paris."),
    ("Add the numbers.", "2 and 3", "They make five."),
    (
        "Why does bread rise?",
        "",
        "Yeast eats the sugar in the flour and gives off gas, which the dough holds in bubbles.",
    ),
    ("Greet me in two languages.", "", "Hello, and bonjour!"),
    ("Shorten the sentence.", "The cat, which was black, sat on the mat.", "A black cat sat."),
    ("How long is a minute?", "", "Sixty seconds."),
]
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    # Wide enough that attention and positions change the loss by more than a rounding error.
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}


def demo_model() -> Path:
    """The folder of the demo profile's SmolLM2-135M, converted on first use."""
    return Path(locate(load_study("demo").models.needed("base"))[0])


def write_model(
    folder: Path, architecture: Any = LlamaForCausalLM, config: PretrainedConfig | None = None
) -> Path:
    """A model of 3.2 million random weights with SmolLM2's tokenizer, always the same one."""
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture(config or LlamaConfig(vocab_size=len(tokenizer), **SHAPE))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoded_examples(tokenizer: Any, max_length: int = 64) -> list[Encoded]:
    """``EXAMPLES`` as they are trained on."""
    return [encode(tokenizer, "plain", i, c, [o], max_length) for i, c, o in EXAMPLES]


def converted(folder: Path, gguf: str) -> str:
    """What a conversion leaves in a model cache in ``folder``."""
    os.environ["IM_MODEL_CACHE"] = str(folder)
    place = dequantized(Path(gguf), contents=True)
    return f"{sorted(p.name for p in folder.iterdir())} {digest_of(place, '*')}"


def plain_model(folder: Path) -> Any:
    """The model as a user of plain transformers loads it, in float32."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def plain_nll(model: Any, prompt: Sequence[int], output: Sequence[int]) -> float:
    """Summed negative log-likelihood of one response: one row, labels -100 on the prompt."""
    ids = torch.tensor([[*prompt, *output]])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    with torch.no_grad():
        return float(model(input_ids=ids, labels=labels).loss) * len(output)
