"""Tokens a second of finetuning: this engine, a plain loop, and TRL, on the same rows.

``python -m benchmarks.finetune [--data FILE] [--rows 64] [--precision fp32 bf16] [--engines 2x1]``

Every contender trains LoRA adapters of the demo's base on the same rows for one epoch; what counts
is tokens without padding, in the wall time of the whole loop. ``2x1`` is two engines with one
adapter each, which share the cores. ``padded`` is this platform's loop for whatever cannot be
packed, one adapter on each core. The runs are interleaved and repeated, each ratio is taken inside
a repetition, and the median is printed with the smallest and the largest. TRL is measured where it
can be imported (``pip install trl==1.16.0``): with its defaults, and with its best setting that
trains the same: no gradient checkpointing, batches grouped by length. (Its packing without flash
attention is not: rows see each other, trl#3910.)
"""

import argparse
import importlib.util
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks.peers import Run, arrangement, plain, tokens_of, trl
from im_resources.gpu import GpuResource, usable_cores
from im_resources.language_model.loading import LoadedModel, load_base
from im_resources.language_model.lora import add_adapter, engines_of, train_adapter
from im_resources.language_model.prompts import Encoded, encode_examples
from im_resources.language_model.side_by_side import run_side_by_side
from im_resources.language_model.training import train
from im_resources.study import FinetuningSettings, ModelSettings, Study, load_study, resolve_path

Contender = Callable[[LoadedModel, Sequence[Encoded], FinetuningSettings], Run]


def main() -> None:
    """Run all contenders, interleaved; print tokens a second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="jsonl with instruction, input, output")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--engines", nargs="+", default=["1x1", "1x2", "2x1"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="contenders, by their names")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    study, device = load_study("demo"), GpuResource(device="auto").torch_device()
    settings = FinetuningSettings(epochs=1, batch_size=8)
    contenders = _contenders(arguments.engines)
    if arguments.only:
        contenders = {name: contenders[name] for name in arguments.only}
    rates: dict[tuple[str, str], list[float]] = {}
    for precision in arguments.precision:
        base = load_base(study.models.needed("base"), precision, device)
        rows = _rows(base, study, arguments)
        print(
            f"{precision}: {len(rows)} rows, {tokens_of(rows, settings)} tokens, "
            f"torch {torch.__version__} on {usable_cores()} cores, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        plain(base, rows[:8], settings)  # what is done once only
        for number in range(arguments.repeat):
            for name, contender in contenders.items():
                run = contender(base, rows, settings)
                rates.setdefault((precision, name), []).append(run.rate)
                told = {"precision": precision, "contender": name, "repetition": number}
                told |= {"tokens_per_second": round(run.rate, 1), "loss": round(run.loss, 3)}
                print(json.dumps(told | {"load": round(os.getloadavg()[0], 1)}), flush=True)
    print(_table(rates))


def _contenders(engines: Sequence[str]) -> dict[str, Contender]:
    found: dict[str, Contender] = {f"engine {what}": _engine(what) for what in engines} | {
        "padded": _padded,
        "plain loop": plain,
    }
    if importlib.util.find_spec("trl"):
        found["TRL defaults"] = trl
        found["TRL best"] = lambda *with_: trl(
            *with_, gradient_checkpointing=False, train_sampling_strategy="group_by_length"
        )
    return found


def _rows(base: LoadedModel, study: Study, arguments: argparse.Namespace) -> list[Encoded]:
    sources = (
        [arguments.data]
        if arguments.data
        else [resolve_path(str(source.path)) for source in study.data.candidates.values()]
    )
    texts = pd.concat([pd.read_json(path, lines=True).fillna("") for path in sources])
    chosen = texts.assign(input=texts.get("input", "")).sample(arguments.rows, random_state=0)
    models = ModelSettings(
        **study.models.model_dump() | {"prompt": "alpaca", "max_length": arguments.max_length}
    )
    return encode_examples(base.tokenizer, models, chosen)


def _engine(what: str) -> Contender:
    """So many adapters in shared steps of each engine, each on all rows with a seed of its own."""

    def run(base: LoadedModel, rows: Sequence[Encoded], settings: FinetuningSettings) -> Run:
        choice = arrangement(what, base.device)
        start = time.perf_counter()
        shared = engines_of(base, settings, max(r.length for r in rows), choice)

        def one(seed: int) -> float:
            adapter = add_adapter(base, settings, seed)
            return train_adapter(adapter, rows, settings, seed, None, shared).losses[-1]

        gpu = GpuResource(device=str(base.device))
        losses = [
            loss for _, loss in run_side_by_side(one, range(choice.at_once), gpu, choice.at_once)
        ]
        seconds = time.perf_counter() - start
        return Run(choice.at_once * tokens_of(rows, settings), seconds, statistics.mean(losses))

    return run


def _padded(base: LoadedModel, rows: Sequence[Encoded], settings: FinetuningSettings) -> Run:
    """Padded batches, one adapter on each core."""
    number = usable_cores() if base.device.type == "cpu" else 1
    start = time.perf_counter()

    def one(seed: int) -> float:
        adapter = add_adapter(base, settings, seed)
        weights = [p for p in adapter.parameters() if p.requires_grad]
        return train(adapter.get_base_model(), weights, rows, settings, seed).losses[-1]

    gpu = GpuResource(device=str(base.device), side_by_side=number)
    losses = [loss for _, loss in run_side_by_side(one, range(number), gpu)]
    seconds = time.perf_counter() - start
    return Run(number * tokens_of(rows, settings), seconds, statistics.mean(losses))


def _table(rates: dict[tuple[str, str], list[float]]) -> str:
    """Medians, and the ratio of the best engine to each, with its spread."""
    lines = [
        "",
        "| precision | contender | tokens/s | best engine is faster by |",
        "|---|---|---|---|",
    ]
    for precision in dict.fromkeys(p for p, _ in rates):
        engines = [name for p, name in rates if p == precision and name.startswith("engine")]
        best = max(engines, key=lambda name: statistics.median(rates[precision, name]), default="")
        for (p, name), found in rates.items():
            if p != precision:
                continue
            ratio = "–"
            if best and name != best:
                both = zip(rates[precision, best], found, strict=True)
                ratios = sorted(mine / theirs for mine, theirs in both)
                ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            lines.append(f"| {p} | {name} | {statistics.median(found):.0f} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
