"""How long a piece of work takes: as it took in a run of this study, else as the probe found.

A run's own figures are of all its rows and of everything that goes with the work; a probe's are of
a few. Each rate says which it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from im_assets.planning.probe import SPREAD, Probe
from im_assets.planning.work import Kind, Span, Work
from im_assets.scoring.registry import chosen
from im_resources.study import Study

FEWEST = 3  # finetunes whose times say more than a probe
ROW_BYTES = 100  # of a row of numbers and fingerprints in the warehouse; DuckDB packs most smaller
MEASURED = ("base", "tokenizer", "embedding")  # models whose part in scoring the probe measures


@dataclass(frozen=True)
class Rate:
    """What one piece of work takes.

    Attributes:
        tokens: run through the base model, padding included.
        seconds: of one worker, from and to.
        by: whose figures these are.
    """

    tokens: float
    seconds: Span
    by: str


@dataclass(frozen=True)
class Ran:
    """A step of an earlier run with the same settings: what it computed, and what that took."""

    kind: Kind
    computed: int
    tokens: int
    seconds: float


def rates_of(
    study: Study,
    probe: Probe | None,
    manifests: Sequence[Mapping[str, Any]],
    ran: Sequence[Ran],
    workers: int,
    instructions: int | None,
) -> dict[Kind, Rate]:
    """The rate of each kind of work; none of a kind that nobody has measured.

    Args:
        manifests: of finetunes made with the study's settings and base.
        ran: the newest step of each kind that computed something.
        workers: pieces that are worked on side by side.
        instructions: that each finetune is evaluated on; None: not known.
    """
    found = {} if probe is None else _probed(study, probe, instructions)
    for step in ran:
        # A step's seconds are of all its workers, and a mean hides how they differ.
        each = step.seconds * min(workers, step.computed) / step.computed
        span = (each * (1 - SPREAD), each * (1 + SPREAD))
        by = f"the last run of {step.computed} {_PIECES[step.kind]}"
        found[step.kind] = Rate(step.tokens / step.computed, span, by)
    if len(manifests) >= FEWEST:
        passes = study.finetuning.epochs * np.array([m["examples"] for m in manifests])
        low, high = np.quantile(np.array([m["seconds"] for m in manifests]) / passes, [0.1, 0.9])
        tokens = sum(m["tokens"] for m in manifests) / passes.sum()
        by = f"the {len(manifests)} finetunes that are there"
        found["training"] = Rate(float(tokens), (float(low), float(high)), by)
    return found


_PIECES = {"scoring": "examples", "evaluating": "evaluations", "training": "finetunes"}


def _probed(study: Study, probe: Probe, instructions: int | None) -> dict[Kind, Rate]:
    by = f"a probe of {probe.at} on {probe.machine}"
    uses = {name for i in chosen(study.scoring) for name in i.backend.uses}
    reads = "base" in uses
    embedding = probe.embedding_seconds or 0.0
    low, high = probe.read_seconds if reads else (0.0, 0.0)
    found: dict[Kind, Rate] = {}
    if uses <= set(MEASURED):
        tokens = probe.read_tokens if reads else 0.0
        found["scoring"] = Rate(tokens, (low + embedding, high + embedding), by)
    if probe.example_tokens:
        found["training"] = Rate(probe.example_tokens, probe.example_seconds, by)
    if instructions is not None and probe.evaluation_tokens:
        low, high = (instructions * seconds for seconds in probe.evaluation_seconds)
        found["evaluating"] = Rate(instructions * probe.evaluation_tokens, (low, high), by)
    return found


def estimated(work: Work, rates: Mapping[Kind, Rate], study: Study, workers: int) -> Work:
    """The work with tokens and seconds, where its rate is known."""
    if not work.left:
        known = work.left == 0 and work.kind != "reading"
        return replace(work, tokens=0, seconds=(0.0, 0.0)) if known else work
    if work.kind == "training" and work.kind not in rates:
        most = work.size * study.models.max_length
        return replace(work, tokens=most, tokens_at_most=True)
    if (rate := rates.get(work.kind)) is None:
        return work
    pieces = work.left
    if work.kind == "scoring":
        pieces = math.ceil(work.left / study.scoring.chunk)
    # The last round may have fewer than all workers.
    rounds = math.ceil(pieces / workers) / pieces
    low, high = (work.size * seconds * rounds for seconds in rate.seconds)
    return replace(work, tokens=round(work.size * rate.tokens), seconds=(low, high))


def with_disk(work: Work, study: Study, trial: int | None, embedding: int, outputs: int) -> Work:
    """The work with the bytes that what is left takes.

    Args:
        trial: bytes of one finetune; None: not known.
        embedding: bytes of one example's embedding; 0: none is kept.
        outputs: reference outputs of the evaluation set.
    """
    if work.left is None or work.kind == "reading":
        return work
    each = {
        "scoring": embedding + ROW_BYTES * 2 * len(study.scoring.indicators),
        "training": trial,
        "evaluating": ROW_BYTES * 2 * outputs,
        "other": 0,
    }[work.kind]
    return work if each is None and work.left else replace(work, disk=work.left * (each or 0))
