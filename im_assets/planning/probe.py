"""A short probe: how fast this machine trains and reads with the study's own model and settings.

A few rows of the study go through what a finetune goes through: its trainer, prompt, length, batch
size and precision, as many side by side as in a run; then through a forward pass as in
scoring and evaluating, and through the sentence embeddings. What was found is kept in the study's
folder, so that the UI can tell times without measuring.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from im_assets.doctor.sources import model
from im_assets.experiments.evaluation import encode_evaluation
from im_assets.experiments.finetuning import training_settings_id
from im_assets.experiments.trainers import TrainingJob, trainer_of
from im_assets.planning.sampling import sample_references, sample_rows
from im_assets.planning.work import Span
from im_assets.scoring.registry import chosen
from im_resources.gpu import GpuResource
from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse

FILE = "probe.json"
STEPS = 3  # training steps of each finetune; the first warms up and is not counted
READ = 16  # rows in the forward pass and the embeddings, and instructions evaluated
VERSION = 1  # of what is kept
SPREAD = 0.25  # of few measurements, the true rate may lie so far beyond either end


@dataclass(frozen=True)
class Probe:
    """What was measured. Seconds are from and to, of one worker among ``workers``.

    Attributes:
        key: of the models, settings and machine that it was measured with.
        at: when, ISO 8601.
        machine: which, in words.
        example_tokens: padded tokens of one example in one epoch of training.
        example_seconds: training on one example once.
        read_tokens: padded tokens of one example in a forward pass.
        read_seconds: reading one example in a forward pass.
        evaluation_tokens: padded tokens of one instruction with its outputs; 0: not measured.
        evaluation_seconds: of one instruction with its outputs.
        embedding_seconds: embedding one example; None where no indicator needs it.
        embedding_bytes: of one example's embedding.
        trial_bytes: what the trainer wrote.
    """

    key: str
    at: str
    machine: str
    workers: int
    example_tokens: float
    example_seconds: Span
    read_tokens: float
    read_seconds: Span
    evaluation_tokens: float
    evaluation_seconds: Span
    embedding_seconds: float | None
    embedding_bytes: int
    trial_bytes: int


class CannotProbe(RuntimeError):
    """Nothing can be measured; says why."""


def kept_probe(study: Study, gpu: GpuResource) -> Probe | None:
    """The probe that was measured before, if it was of these models, settings and machine."""
    try:
        content = json.loads((study.folder / FILE).read_text(encoding="utf-8"))
        spans = {n: tuple(v) for n, v in content.items() if isinstance(v, list)}
        probe = Probe(**content | spans)
    except (OSError, ValueError, TypeError):  # none, or of another version
        return None
    return probe if probe.key == probe_key(study, gpu) else None


def probe_key(study: Study, gpu: GpuResource) -> str:
    """What a measurement depends on."""
    models, evaluation = study.models, study.evaluation
    return fingerprint(
        VERSION,
        gpu.base_fingerprint(study),
        models.embedding if _embeds(study) else None,
        training_settings_id(study),
        models.max_length,
        [evaluation.max_outputs, evaluation.max_output_tokens, evaluation.tokens_per_batch],
        study.scoring.tokens_per_batch,
        gpu.workers,
        machine(gpu),
    )


def machine(gpu: GpuResource) -> str:
    """Where the models run, in words."""
    return gpu.where()


def no_base(study: Study) -> list[str]:
    """Why the base model cannot, or need not, be read here; none where it can be."""
    if not _reads_base(study):
        return ["nothing of the study reads models.base"]
    return out_of_reach(study, "base")


def _reads_base(study: Study) -> bool:
    """Whether the study may load its base; with own runs, only an indicator does."""
    return study.runs is None or bool({"base", "tokenizer"} & set(_used(study)))


def out_of_reach(study: Study, *names: str) -> list[str]:
    """Why models cannot be loaded without a download or a conversion; none where all can be.

    Args:
        names: of ``models``; default: those that the indicators use, and the base.
    """
    from huggingface_hub import try_to_load_from_cache

    found = []
    base = ["base"] if _reads_base(study) else []
    for used in names or (*base, *_used(study)):
        name = "base" if used == "tokenizer" else used
        source = getattr(study.models, name)
        if source is None:
            continue
        if source.hub is not None:  # the doctor's words are about what a run would do
            where = try_to_load_from_cache(source.hub, "config.json", revision=source.revision)
            if not isinstance(where, str):
                found.append(f"models.{name}: {source.hub} is not in the local cache")
        elif (finding := model(f"models.{name}", source)).level != "ok":
            found.append(finding.what)
    return list(dict.fromkeys(found))


def measure(study: Study, gpu: GpuResource, warehouse: Warehouse) -> Probe:
    """Measure, and keep what was found in the study's folder.

    Raises CannotProbe when the base model is out of reach, there are no rows at hand, or the model
    cannot train on them.
    """
    if not gpu.loads:
        raise CannotProbe("models run on a cluster, whose first finetunes will tell")
    if reasons := no_base(study):
        raise CannotProbe("; ".join(reasons))
    rows = sample_rows(study, warehouse)
    if rows.empty:
        raise CannotProbe("there are no rows at hand to measure with: nothing has been read yet")
    try:
        probe = _measured(study, gpu, rows, sample_references(study, warehouse, READ))
    # Of whatever kind: a trainer may be the user's own. The run will tell of it in full.
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        raise CannotProbe(f"the probe failed: {said.splitlines()[0]}") from error
    study.folder.mkdir(parents=True, exist_ok=True)
    new = study.folder / f".{FILE}.{os.getpid()}"
    new.write_text(json.dumps(asdict(probe), indent=1), encoding="utf-8")
    new.rename(study.folder / FILE)
    return probe


def _measured(
    study: Study, gpu: GpuResource, rows: pd.DataFrame, evaluation: pd.DataFrame | None
) -> Probe:
    from im_resources.language_model.losses import output_losses
    from im_resources.language_model.prompts import encode_examples
    from im_resources.language_model.side_by_side import run_side_by_side

    base = gpu.base_model(study)

    def forward(encoded: Sequence[Any], most: int) -> tuple[float, Span]:
        """Tokens and seconds of one of ``encoded``."""

        def one(_: int) -> list[Step]:
            replica = base.replica()
            output_losses(replica, encoded[:2], most)  # warms up
            return _timed(lambda on: output_losses(replica, encoded, most, on_batch=on))

        taken = [
            step for _, steps in run_side_by_side(one, range(gpu.workers), gpu) for step in steps
        ]
        each = sum(step.tokens for step in taken) / (gpu.workers * len(encoded))
        low, high = span([step.seconds / max(step.tokens, 1) for step in taken])
        return each, (each * low, each * high)

    sample = rows.head(READ)
    encoded = encode_examples(base.tokenizer, study.models, sample)
    read_tokens, read_seconds = forward(encoded, study.scoring.tokens_per_batch)
    evaluation_tokens, evaluation_seconds = 0.0, (0.0, 0.0)
    if evaluation is not None:
        asked = encode_evaluation(evaluation, base.tokenizer, study)
        evaluation_tokens, evaluation_seconds = forward(asked, study.evaluation.tokens_per_batch)
    example_tokens, example_seconds, trial_bytes = 0.0, (0.0, 0.0), 0
    if not study.trains_nothing:
        example_tokens, example_seconds, trial_bytes = _training(study, gpu, rows)
    embedding, size = _embedding(study, gpu, sample)
    return Probe(
        key=probe_key(study, gpu),
        at=datetime.now().astimezone().isoformat(timespec="minutes"),
        machine=machine(gpu),
        workers=gpu.workers,
        example_tokens=example_tokens,
        example_seconds=example_seconds,
        read_tokens=read_tokens,
        read_seconds=read_seconds,
        evaluation_tokens=evaluation_tokens,
        evaluation_seconds=evaluation_seconds,
        embedding_seconds=embedding,
        embedding_bytes=size,
        trial_bytes=trial_bytes,
    )


def _training(study: Study, gpu: GpuResource, rows: pd.DataFrame) -> tuple[float, Span, int]:
    """Tokens and seconds of one example in one epoch, and the bytes of what was trained."""
    batch = study.finetuning.batch_size
    with tempfile.TemporaryDirectory(prefix="im-probe-") as scratch:
        steps = [step for step in _train(study, gpu, rows, Path(scratch)) if step.number > 1]
        written = [p.stat().st_size for p in (Path(scratch) / "0").rglob("*") if p.is_file()]
    tokens = sum(step.tokens for step in steps) / (len(steps) * batch)
    return tokens, span([step.seconds / batch for step in steps]), sum(written)


def _train(study: Study, gpu: GpuResource, rows: pd.DataFrame, scratch: Path) -> list["Step"]:
    """The steps of as many finetunes as run side by side."""
    from im_resources.language_model.memory import enough_memory
    from im_resources.language_model.side_by_side import run_side_by_side

    base, (trainer, options) = gpu.base_model(study), trainer_of(study.finetuning)
    settings = study.finetuning.model_copy(update={"epochs": 1})
    wanted = STEPS * settings.batch_size
    # Few rows are taken again and again: it is about their length.
    taken = pd.concat([rows] * (wanted // len(rows) + 1)).head(wanted).reset_index(drop=True)

    def one(number: int) -> list[Step]:
        folder = scratch / str(number)
        folder.mkdir()

        def train(on_step: Callable[[int, int, int], None]) -> None:
            job = TrainingJob(base, taken, study.models, settings, number, folder, on_step)
            with enough_memory("a probe of finetuning", {"finetuning.batch_size": 1}):
                trainer.train(job, **options)

        return _timed(train)

    done = run_side_by_side(one, range(gpu.workers), gpu)
    return [step for _, steps in done for step in steps]


class Step(NamedTuple):
    """A step of work that was timed."""

    number: int
    seconds: float
    tokens: int


def _timed(run: Callable[[Callable[[int, int, int], None]], object]) -> list[Step]:
    """Each step of ``run``, which calls what it is given after each."""
    found: list[Step] = []
    last = time.perf_counter()

    def step(number: int, _: int, tokens: int) -> None:
        nonlocal last
        now = time.perf_counter()
        found.append(Step(number, now - last, tokens))
        last = now

    run(step)
    return found


def span(values: Sequence[float]) -> Span:
    """From the least to the greatest value, and a margin, since there are few."""
    return min(values) * (1 - SPREAD), max(values) * (1 + SPREAD)


def _embedding(study: Study, gpu: GpuResource, rows: pd.DataFrame) -> tuple[float | None, int]:
    """Seconds of one worker, and bytes, of one example's embedding."""
    if not _embeds(study) or out_of_reach(study, "embedding"):
        return None, 0
    embedder = gpu.embedder(study)
    embedder.embed(rows["output"].head(2).tolist())  # warms up
    start = time.perf_counter()
    vectors = embedder.embed([*rows["instruction"], *rows["output"]])
    seconds = gpu.workers * (time.perf_counter() - start) / len(rows)
    return seconds, 2 * vectors.shape[1] * vectors.itemsize


def _used(study: Study) -> list[str]:
    """The study's models that its indicators read; a judge is none, or it is the base."""
    uses = (name for i in chosen(study.scoring) for name in i.backend.uses)
    return list(dict.fromkeys(name for name in uses if name != "judge"))


def _embeds(study: Study) -> bool:
    return "embedding" in _used(study)
