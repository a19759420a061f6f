"""Examples a second of scoring and tokens a second of evaluation, next to how scripts do it.

``python -m benchmarks.score [--data FILE] [--rows 48] [--precision fp32] [--only scoring …]``

Parts, each interleaved and repeated; every ratio is taken inside a repetition, and the median is
printed with the smallest and the largest, in wall time and in CPU time (which a busy machine leaves
nearly alone). What is compared has to agree, or the benchmark fails.

* ``scoring``: the demo's nine indicators, from texts to scores in a new cache, against a script
  that takes one example at a time: with one forward pass an example, and with one an indicator.
* ``evaluation``: the losses of adapters, against this platform's padded path, a plain loop over
  batches of 8 and one row at a time. Counted are the tokens of the rows, without padding. On a GPU,
  also several adapters in a pass.
* ``mtld`` against LexicalRichness, ``knn`` (KNN-6 of 2000 vectors) against scikit-learn; one that
  is not installed is left out, with a line that says so.
"""

import argparse
import importlib.util
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.scoring_peers import knn_of, mtld_of, one_at_a_time, plain_losses
from im_assets.scoring.batch import Models
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.indicators.mtld import text_mtld
from im_assets.scoring.indicators.nearest_neighbour import nearest_neighbour
from im_assets.scoring.registry import chosen
from im_assets.scoring.scorer import score_missing
from im_resources.gpu import GpuResource, usable_cores
from im_resources.language_model.evaluating import losses_under
from im_resources.language_model.finetuned import load_finetuned
from im_resources.language_model.lora import add_adapter
from im_resources.language_model.losses import Padded, losses_of_each
from im_resources.language_model.prompts import Encoded, encode_examples
from im_resources.language_model.side_by_side import run_side_by_side
from im_resources.study import FinetuningSettings, Study, load_study, resolve_path
from im_resources.warehouse import Warehouse

Contender = Callable[[], Any]


def main() -> None:
    """Run the parts that are asked for; print a line a contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="jsonl with instruction, input, output")
    parser.add_argument("--rows", type=int, default=48, help="more than 6, for KNN-6")
    parser.add_argument("--adapters", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    study, gpu = _study(arguments), GpuResource(device="auto")
    examples = _examples(study, arguments)
    print(
        f"{arguments.precision} on {gpu.torch_device()}, torch {torch.__version__}, "
        f"{usable_cores()} cores, load {os.getloadavg()[0]:.1f}, {len(examples)} rows",
        flush=True,
    )
    for part in arguments.only:
        PARTS[part](study, gpu, examples, arguments)


def scoring(study: Study, gpu: GpuResource, examples: pd.DataFrame, arguments: Any) -> None:
    """All nine indicators."""
    models, indicators = Models.of(study, gpu), chosen(study.scoring)
    encoded = encode_examples(models.base.tokenizer, study.models, examples)
    knn = next(i for i in indicators if i.backend.scope == "set")

    def ours() -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory() as folder:
            warehouse = Warehouse(Path(folder) / "scores.duckdb")
            scores, _ = score_missing(examples, indicators, models, warehouse)
            vectors = embeddings_of(list(examples["example_id"]), models, warehouse)
            wide = scores.pivot(index="example_id", columns="indicator", values="value")
        wide = wide.loc[examples["example_id"]]
        found = {str(name): wide[name].to_numpy() for name in wide}
        return found | {knn.name: np.full(len(examples), knn.of_set(vectors))}

    def script(one_pass: bool) -> dict[str, np.ndarray]:
        found = one_at_a_time(models, examples, encoded, one_pass)
        return found | {knn.name: np.full(len(examples), found[knn.name].mean())}

    contenders: dict[str, Contender] = {
        "this platform": ours,
        "one example at a time, one pass": lambda: script(True),
        "one example at a time, a pass an indicator": lambda: script(False),
    }
    close = 1e-3 if arguments.precision == "fp32" else 0.2
    mine = ours()  # also: what is done once only
    for name, wanted in script(True).items():
        np.testing.assert_allclose(mine[name], wanted, rtol=close, atol=close, err_msg=name)
    _race("scoring", "examples", len(examples), contenders, arguments.repeat)


def evaluation(study: Study, gpu: GpuResource, examples: pd.DataFrame, arguments: Any) -> None:
    """Losses of some adapters on all rows."""
    base, number = gpu.base_model(study), arguments.adapters
    rows = encode_examples(base.tokenizer, study.models, examples)
    most = study.evaluation.tokens_per_batch
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / str(seed) for seed in range(number)]
        for seed, folder in enumerate(folders):
            add_adapter(base, FinetuningSettings(), seed).save_pretrained(folder)

        def side_by_side(work: Callable[[Path], Any]) -> list[float]:
            done = dict(run_side_by_side(work, folders, gpu))
            return [float(loss) for folder in folders for loss in done[folder]]

        def padded(folder: Path) -> Any:
            forward = Padded(load_finetuned(base, folder), rows)
            return losses_of_each(forward, rows, most)[0].nll

        def plain(batch_size: int) -> list[float]:
            models = (load_finetuned(base, folder) for folder in folders)
            return [loss for model in models for loss in plain_losses(model, rows, batch_size)]

        contenders: dict[str, Contender] = {
            "this platform": lambda: side_by_side(
                lambda folder: losses_under(base, [folder], rows, most)[0].nll
            ),
            "padded": lambda: side_by_side(padded),
            "plain loop, batches of 8": lambda: plain(8),
            "one row at a time": lambda: plain(1),
        }
        if base.device.type == "cuda":
            contenders[f"{number} in a pass"] = lambda: [
                float(loss)
                for losses in losses_under(base, folders, rows, number * most)
                for loss in losses.nll
            ]
        close = 1e-4 if arguments.precision == "fp32" else 0.05
        wanted = plain(1)
        for name, contender in contenders.items():  # also: what is done once only
            np.testing.assert_allclose(contender(), wanted, rtol=close, err_msg=name)
        tokens = number * sum(_tokens(row) for row in rows)
        _race("evaluation", "tokens", tokens, contenders, arguments.repeat)


def mtld(study: Study, gpu: GpuResource, examples: pd.DataFrame, arguments: Any) -> None:
    """Lexical diversity of the responses."""
    if not _there("lexicalrichness", "mtld"):
        return
    texts = [*map(str, examples["output"])]
    np.testing.assert_allclose([*map(text_mtld, texts)], [*map(mtld_of, texts)], rtol=1e-9)
    texts *= 20_000 // len(texts)
    contenders: dict[str, Contender] = {
        "this platform": lambda: [text_mtld(text) for text in texts],
        "LexicalRichness": lambda: [mtld_of(text) for text in texts],
    }
    _race("mtld", "texts", len(texts), contenders, arguments.repeat)


def knn(study: Study, gpu: GpuResource, examples: pd.DataFrame, arguments: Any) -> None:
    """KNN-6 inside a mixture of the paper's size, of the demo's embeddings' dimensions."""
    if not _there("sklearn", "knn"):
        return
    vectors = np.random.default_rng(0).standard_normal((2000, 768), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(nearest_neighbour(vectors), knn_of(vectors), rtol=1e-4)
    contenders: dict[str, Contender] = {
        "this platform": lambda: nearest_neighbour(vectors),
        "scikit-learn": lambda: knn_of(vectors),
    }
    _race("knn", "vectors", len(vectors), contenders, arguments.repeat)


PARTS: Mapping[str, Callable[[Study, GpuResource, pd.DataFrame, Any], None]] = {
    "scoring": scoring,
    "evaluation": evaluation,
    "mtld": mtld,
    "knn": knn,
}


def _race(
    part: str, unit: str, number: int, contenders: Mapping[str, Contender], repeat: int
) -> None:
    """Time all, interleaved; print rates, and by how much the first is faster."""
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeat):
        for name, contender in contenders.items():
            start, busy = time.perf_counter(), time.process_time()
            contender()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - busy)
    first = next(iter(contenders))
    for name in contenders:
        rates = f"{number / statistics.median(wall[name]):.1f} {unit}/s"
        line = f"{part} · {name}: {rates}, {number / statistics.median(cpu[name]):.1f} a CPU second"
        if name != first:
            line += f"; slower by {_ratio(wall, first, name)}, in CPU time "
            line += _ratio(cpu, first, name)
        print(f"{line}; load {os.getloadavg()[0]:.1f}", flush=True)


def _ratio(seconds: Mapping[str, list[float]], first: str, name: str) -> str:
    both = zip(seconds[name], seconds[first], strict=True)
    ratios = sorted(theirs / max(ours, 1e-9) for theirs, ours in both)
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _there(module: str, part: str) -> bool:
    if importlib.util.find_spec(module):
        return True
    print(f"{part}: left out, since {module} is not installed (pip install -e '.[dev]')")
    return False


def _tokens(row: Encoded) -> int:
    return sum(len(row.prompt) + len(output) for output in row.outputs)


def _study(arguments: argparse.Namespace) -> Study:
    """The demo's, with the paper's prompt and length."""
    study = load_study("demo")
    changed = {
        "prompt": "alpaca",
        "max_length": arguments.max_length,
        "precision": arguments.precision,
    }
    models = type(study.models)(**study.models.model_dump() | changed)
    return study.model_copy(update={"models": models})


def _examples(study: Study, arguments: argparse.Namespace) -> pd.DataFrame:
    paths = [arguments.data] if arguments.data else [
        resolve_path(str(source.path)) for source in study.data.candidates.values()
    ]  # fmt: skip
    texts = pd.concat([pd.read_json(path, lines=True).fillna("") for path in paths])
    texts = texts.assign(input=texts.get("input", "")).fillna("")
    texts = texts[texts["output"].str.len() > 0]
    drawn = texts.sample(min(arguments.rows, len(texts)), random_state=0).reset_index(drop=True)
    return drawn.assign(example_id=[f"row-{k}" for k in range(len(drawn))])


if __name__ == "__main__":
    main()
