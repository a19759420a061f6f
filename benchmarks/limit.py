"""How much of the machine's own matrix multiplication finetuning reaches.

``python -m benchmarks.limit [--precision fp32 bf16] [--engines 1x1 2x1]``

Counted are 4 operations a weight and token for the frozen layers (forward, and backward to the
activations; weights get no gradient), and the same for the output layer at response positions.
Attention, norms and the adapters themselves are not counted. The peak is that of a large matrix
product in the same precision on the same threads, measured right before each run.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import arrangement
from im_resources.language_model.engines import Choice, rate_of
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.lora import add_adapter
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.together import Engine
from im_resources.study import FinetuningSettings

LENGTHS = json.loads((Path(__file__).parent / "lengths.json").read_text(encoding="utf-8"))


def main() -> None:
    """Measure the demo's base on this machine; print one line a configuration."""
    from im_resources.gpu import GpuResource
    from im_resources.language_model.loading import load_base
    from im_resources.study import load_study

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--engines", nargs="+", default=["1x1", "2x1"], help="engines x adapters")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    device, settings = GpuResource().torch_device(), FinetuningSettings(batch_size=8)
    for precision in arguments.precision:
        base = load_base(load_study("demo").models.needed("base"), precision, device)
        for what in arguments.engines:
            choice = arrangement(what, device)
            shares, rates = [], []
            for _ in range(arguments.repeat):
                peak = matmul_peak(device, base.model.dtype)
                rate, operations = measured(base, settings, choice, arguments.max_length)
                shares.append(operations / peak)
                rates.append(rate)
            print(
                f"{precision}, {what}: {statistics.median(rates):.0f} tokens/s, "
                f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%}) of a "
                f"peak of {peak / 1e9:.0f} GFLOP/s; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations a second of a large product; the best of those within ``seconds``."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    many = 10 if device.type == "cuda" else 1
    while time.perf_counter() < end or not best:
        _wait(device)
        start = time.perf_counter()
        for _ in range(many):
            a @ b
        _wait(device)
        best = max(best, many * 2 * size**3 / (time.perf_counter() - start))
    return best


def measured(
    base: LoadedModel, settings: FinetuningSettings, choice: Choice, max_length: int, steps: int = 2
) -> tuple[float, float]:
    """(tokens a second, counted operations a second) of steps of so many adapters together."""
    adapters = [
        [add_adapter(base, settings, seed) for seed in range(choice.adapters)]
        for _ in range(choice.engines)
    ]
    engines = [Engine(mine[0], settings, max_length, choice.threads) for mine in adapters]
    tokens = operations = seconds = 0.0
    for step in range(steps):
        rows = rows_like_the_papers(settings.batch_size, max_length, base, step)
        mine = choice.at_once * sum(row.length for row in rows)
        tokens += mine
        seconds += mine / rate_of(engines, adapters, rows, settings)
        operations += choice.at_once * counted(base.model, rows, settings.gradient_checkpointing)
    return tokens / seconds, operations / seconds


def counted(model: Any, rows: Sequence[Encoded], checkpointed: bool = False) -> float:
    """Operations of a forward and a backward pass over these rows."""
    body = frozen_weights(model.get_decoder())
    head = model.get_output_embeddings()
    responses = sum(len(output) for row in rows for output in row.outputs)
    passes = 6 if checkpointed else 4
    inner = passes * body * sum(row.length for row in rows)
    return inner + 4 * head.in_features * head.out_features * responses


def frozen_weights(decoder: Any) -> int:
    """Weights of the linear layers of a decoder, quantized or not."""
    kinds = torch.nn.Linear  # bitsandbytes' layers are subclasses
    layers = [module for module in decoder.modules() if isinstance(module, kinds)]
    return sum(layer.in_features * layer.out_features for layer in layers)


def rows_like_the_papers(
    number: int, max_length: int, base: LoadedModel, seed: int
) -> list[Encoded]:
    """Rows of random tokens, whose lengths are drawn from those of the paper's candidates."""
    draw = random.Random(seed)
    vocabulary = base.model.config.vocab_size
    return [
        random_row(draw, vocabulary, max_length, prompt, response)
        for prompt, response in draw.choices(LENGTHS["lengths"], k=number)
    ]


def random_row(draw: random.Random, vocabulary: int, most: int, *lengths: int) -> Encoded:
    """A prompt and its responses of these lengths, each cut so that with it at most ``most``."""
    prompt, *outputs = lengths
    prompt = min(prompt, most // 2)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, vocabulary) for _ in range(length))

    return Encoded(tokens(prompt), tuple(tokens(min(o, most - prompt)) for o in outputs))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
