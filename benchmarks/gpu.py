"""Finetuning speed of a LLaMA-7B on this GPU, and the hours of the paper's whole study.

``python -m benchmarks.gpu [--model 7b|small] [--precision bf16 int8 nf4] [--at-once 1 4 8 16]
[--repeats 3] [--checkpointing] [--seconds 240] [--out FILE]``

Needs no model hub, no Dagster and no database: the base has the shape of LLaMA-7B and random
weights, made on the device, which serves for speed. The adapters are the paper profile's (rank 8 on
q_proj and v_proj, batch size 8, at most 1024 tokens); the rows have the lengths of the paper's
candidates (``lengths.json``). Each configuration trains K adapters in threads, as a study does, and
is measured from the first step's end on; where memory does not suffice for K at once, the engine
goes on with fewer, which is printed. Every result is printed as a line of JSON when it is there,
and all as a table at the end: medians, with the least and the most. A configuration is not begun
once ``--seconds`` are over.

The projection: 78 mixtures of 2000 examples, 3 epochs, at the measured rate; and 78 evaluations of
the paper's 332 instructions with five outputs each, at the rate of the platform's evaluation.
"""

import argparse
import copy
import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.limit import (
    LENGTHS,
    counted,
    matmul_peak,
    random_row,
    rows_like_the_papers,
)
from im_resources.language_model.loading import LoadedModel, settle_bitsandbytes
from im_resources.language_model.lora import add_adapter, train_adapter
from im_resources.language_model.losses import output_losses
from im_resources.language_model.together import Engine
from im_resources.study import FinetuningSettings

# The paper's: mixtures, examples in each, epochs, tokens of a row at most.
MIXTURES, EXAMPLES, EPOCHS, LONGEST = 78, 2000, 3, 1024
SHAPES: dict[str, dict[str, int]] = {
    "7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "small": {
        "vocab_size": 32000,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    },
}
COLUMNS = (
    "precision", "checkpointing", "adapters", "in_a_pass", "tokens_per_second", "tflops",
    "share_of_peak", "memory_gib", "finetuning_hours", "evaluation_hours",
)  # fmt: skip


def main() -> None:
    """Measure all configurations that the time allows; print JSON lines, then a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SHAPES, default="7b")
    parser.add_argument("--precision", nargs="+", default=["bf16"])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--steps", type=int, default=5, help="of each adapter, the first not timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file too")
    arguments = parser.parse_args()
    end = time.perf_counter() + arguments.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = matmul_peak(device, torch.bfloat16)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    machine = {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
    _tell({**machine, "model": arguments.model, "matmul_tflops": round(peak / 1e12, 1)}, arguments)
    found = []
    for precision in arguments.precision:
        try:
            base = random_base(arguments.model, precision, device)
        except ImportError as error:
            _tell({"precision": precision, "left_out": str(error)}, arguments)
            continue
        evaluation = evaluation_rate(base)
        # Interleaved, so that what changes on the machine meanwhile meets all alike.
        for number in arguments.at_once * arguments.repeats:
            if time.perf_counter() > end:
                _tell({"left_out": f"{precision}, K = {number}: the time is over"}, arguments)
                continue
            result = measured(base, number, arguments.steps, arguments.checkpointing, peak)
            free()
            result |= projected(result["tokens_per_second"], evaluation)
            _tell(result, arguments)
            found.append(result)
        del base
        free()
    print(table(medians(found)))


def random_base(model: str, precision: str, device: torch.device) -> LoadedModel:
    """A LLaMA of random weights, frozen. Raises ImportError without bitsandbytes where needed."""
    if precision in ("int8", "nf4"):
        import bitsandbytes  # noqa: F401
    config = transformers.LlamaConfig(**SHAPES[model], max_position_embeddings=2048)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            made = transformers.LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    if precision != "bf16":
        quantize(made, precision, device)
    made.requires_grad_(False).eval()
    return LoadedModel(made, None, f"random {model} {precision}", precision, device)


def quantize(model: Any, precision: str, device: torch.device) -> None:
    """Replace the decoder's linear layers by bitsandbytes', as transformers does on loading.

    One block is quantized, on its way from the CPU; the others get copies, which serves for speed.
    """
    import bitsandbytes as bnb

    blocks = model.get_decoder().layers
    for name, layer in list(blocks[0].named_modules()):
        if type(layer) is not torch.nn.Linear:
            continue
        sizes, weight = (layer.in_features, layer.out_features), layer.weight.data.cpu()
        if precision == "int8":
            new: Any = bnb.nn.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False, threshold=6)
            new.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        else:
            new = bnb.nn.Linear4bit(
                *sizes, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
            )
            new.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
        new = new.to(device)
        for block in blocks:
            block.set_submodule(name, copy.deepcopy(new))
    settle_bitsandbytes(model)
    free()


def measured(
    base: LoadedModel, number: int, steps: int, checkpointing: bool, peak: float
) -> dict[str, Any]:
    """Train ``number`` adapters for ``steps`` steps, all together; what is timed begins with 2."""
    settings = FinetuningSettings(
        epochs=1, batch_size=8, gradient_checkpointing=checkpointing, checkpoint_minutes=None
    )
    rows = {seed: rows_like_the_papers(8 * steps, LONGEST, base, seed) for seed in range(number)}
    adapters = [add_adapter(base, settings, seed) for seed in range(number)]
    engine = Engine(adapters[0], settings, LONGEST)
    if base.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    lock, timed, started = threading.Lock(), [0], [0.0]
    together = threading.Barrier(number)

    def train(seed: int) -> None:
        def on_step(step: int, _steps: int, tokens: int) -> None:
            with lock:
                if step == 1:  # the last of the first steps counts
                    started[0] = time.perf_counter()
                else:
                    timed[0] += tokens

        together.wait()
        train_adapter(adapters[seed], rows[seed], settings, seed, on_step, engine)

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(train, range(number)))
    seconds = time.perf_counter() - started[0]
    all_rows = [row for mine in rows.values() for row in mine]
    operations = counted(base.model, all_rows) / sum(row.length for row in all_rows)
    rate = timed[0] / seconds
    memory = torch.cuda.max_memory_allocated() / 2**30 if base.device.type == "cuda" else 0.0
    return {
        "precision": base.precision,
        "checkpointing": checkpointing,
        "adapters": number,
        "in_a_pass": engine.limit or number,
        "tokens_per_second": round(rate, 1),
        "tflops": round(rate * operations / 1e12, 2),
        "share_of_peak": round(rate * operations / peak, 3),
        "memory_gib": round(memory, 1),
        "seconds": round(seconds, 1),
    }


def evaluation_rate(base: LoadedModel) -> float:
    """Evaluations of a finetune in an hour: the paper's set, as the platform evaluates it."""
    import random

    draw, few = random.Random(0), 32
    lengths = draw.sample(LENGTHS["evaluation"], few)
    rows = [random_row(draw, base.model.config.vocab_size, LONGEST, *row) for row in lengths]
    output_losses(base.model, rows[:4], 16384)
    start = time.perf_counter()
    output_losses(base.model, rows, 16384)
    seconds = time.perf_counter() - start
    every = sum(map(sum, LENGTHS["evaluation"])) / sum(map(sum, lengths))
    return 3600 / (seconds * every)


def projected(rate: float, evaluations_an_hour: float) -> dict[str, float]:
    """Hours of the paper's study on this device."""
    lengths = LENGTHS["lengths"]
    tokens = MIXTURES * EXAMPLES * EPOCHS * sum(map(sum, lengths)) / len(lengths)
    return {
        "finetuning_hours": round(tokens / rate / 3600, 2),
        "evaluation_hours": round(MIXTURES / evaluations_an_hour, 2),
    }


def medians(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a configuration: medians, the speed's least and most, the most of the memory."""
    lines = []
    for key in dict.fromkeys((r["precision"], r["adapters"]) for r in found):
        same = [r for r in found if (r["precision"], r["adapters"]) == key]
        line = sorted(same, key=lambda r: r["tokens_per_second"])[len(same) // 2]
        rates = [r["tokens_per_second"] for r in same]
        spread = f"{line['tokens_per_second']:.0f} [{min(rates):.0f}, {max(rates):.0f}]"
        memory = max(r["memory_gib"] for r in same)
        lines.append({**line, "tokens_per_second": spread, "memory_gib": memory})
    return lines


def table(found: list[dict[str, Any]]) -> str:
    """All results in Markdown."""
    lines = ["", "| " + " | ".join(COLUMNS).replace("_", " ") + " |", "|---" * len(COLUMNS) + "|"]
    return "\n".join(lines + ["| " + " | ".join(str(r[c]) for c in COLUMNS) + " |" for r in found])


def free() -> None:
    """Give back what nothing uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _tell(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    line = json.dumps(result)
    print(line, flush=True)
    if arguments.out is not None:
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
