"""similar_to: the examples nearest in meaning to a few target instructions.

Query-aware selection by embeddings: what a few instructions of the kind that the model is wanted
for resemble most. Taking the targets in turn, each its nearest example that is left, is the
selection of RDS+ (Ivison et al. 2025, *Large-Scale Data Selection for Instruction Tuning*, arXiv
2503.01807), in the space of sentence embeddings. The most similar over all targets, and the mean
over them, are the scores that LESS (Xia et al. 2024, arXiv 2402.04333) takes of gradients.

Targets that are in the evaluation set are refused: a selection by what it is judged on is no
evidence.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from im_assets.candidates.content import example_id
from im_assets.candidates.files import Fault, SourceError, read_records
from im_assets.candidates.rows import RowError, text, text_or_empty
from im_assets.scoring.embeddings import blocks
from im_assets.selection.pool import Pool
from im_assets.selection.registry import strategy
from im_assets.selection.selecting import SelectionError
from im_resources.study import did_you_mean, resolve_path
from im_resources.texts import normalize

FIELDS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Targets:
    """What a selection shall resemble: prompts, and the responses to them where all have one."""

    prompts: list[str]
    outputs: list[str] | None


def _content(options: Mapping[str, Any]) -> str:
    path = resolve_path(options["path"])
    if not path.is_file():
        raise SelectionError(f"similar_to, option path: no such file: {path}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@strategy("similar_to", content=_content, embeds=True)
def similar_to(
    pool: Pool,
    size: int,
    seed: int,
    path: str,
    by: Literal["turns", "max", "mean"] = "turns",
) -> np.ndarray:
    """The examples whose embeddings have the largest cosine with those of the targets.

    Compared are pairs of prompt and response, as KNN-i compares them, where the targets have
    responses; else the prompts alone.

    Args:
        path: of the targets: JSON lines (or another kind of file that sources may be) with
            instruction, and input and output where there are any.
        by: turns: each target in turn takes its nearest that is left, so that all are served
            alike; max: the most similar to any target first; mean: to all of them.

    Raises SelectionError for a file that cannot be read, without targets, with a target that the
    evaluation set asks too, or where some targets have a response and others none.
    """
    similar = _similarities(pool, read_targets(path, pool.evaluated()))
    if by == "max":
        return pool.ranked(-similar.max(axis=1))[:size]
    if by == "mean":
        return pool.ranked(-similar.mean(axis=1, dtype=float))[:size]
    return _in_turns(np.stack([pool.ranked(-column) for column in similar.T]), size)


def read_targets(path: str, evaluated: frozenset[str]) -> Targets:
    """The targets in a file, none of them twice.

    Args:
        path: as in the profile, with ${VARIABLES}.
        evaluated: ids of what the evaluation set asks (see Pool).

    Raises SelectionError, with file and line, as ``similar_to`` does.
    """
    place = resolve_path(path)
    lines: dict[str, int] = {}
    rows: list[tuple[str, str]] = []
    try:
        for line, row in read_records(place):
            where = f"{place}, line {line}"
            if isinstance(row, Fault) or not isinstance(row, dict):
                told = row.reason if isinstance(row, Fault) else "not an object with fields"
                raise SelectionError(f"{where}: {told}")
            instruction, given, output = _read(row, where)
            if example_id(instruction, given) in evaluated:
                raise SelectionError(
                    f"{where}: this target is in the evaluation set, so that what is selected by "
                    f"it could not be judged on that: {instruction[:80]!r}; leave it out"
                )
            if example_id(instruction, given, output) in lines:
                continue
            lines[example_id(instruction, given, output)] = line
            rows.append((f"{instruction}\n\n{given}" if given else instruction, output))
    except SourceError as error:
        raise SelectionError(f"similar_to, option path: {error}") from error
    if not rows:
        raise SelectionError(f"similar_to, option path: {place} has no targets")
    prompts, outputs = map(list, zip(*rows, strict=True))
    if not any(outputs):
        return Targets(prompts, None)
    if not all(outputs):
        line = list(lines.values())[outputs.index("")]
        raise SelectionError(
            f"{place}, line {line}: no output, but other targets have one; give all of them one, "
            "or none"
        )
    return Targets(prompts, outputs)


def _read(row: dict[str, Any], where: str) -> tuple[str, str, str]:
    if "instruction" not in row:
        hint = did_you_mean("instruction", list(row))
        raise SelectionError(f"{where}: no field 'instruction'{hint}; it has: {', '.join(row)}")
    try:
        texts = text(row, "instruction"), *(text_or_empty(row, name) for name in FIELDS[1:])
    except RowError as error:
        raise SelectionError(f"{where}: {error}") from error
    instruction, given, output = map(normalize, texts)
    if not instruction:
        raise SelectionError(f"{where}: empty instruction")
    return instruction, given, output


def _similarities(pool: Pool, targets: Targets) -> np.ndarray:
    """The cosine of every example with every target, float32 [examples, targets]."""
    if pool.embed is None:
        raise SelectionError("similar_to needs a pool that embeds texts")
    wanted = pool.embed(targets.prompts)
    if targets.outputs is not None:
        wanted = np.hstack([wanted, pool.embed(targets.outputs)])
    width, vectors = wanted.shape[1], pool.embeddings()
    # An example's prompt is the first half of its vector, of length 1/√2.
    scale = np.float32(np.sqrt(2) if targets.outputs is None else 1 / np.sqrt(2))
    found = np.empty((len(vectors), len(wanted)), dtype=np.float32)
    for rows, block in blocks(vectors):
        found[rows] = block[:, :width] @ (wanted.T * scale)
    return found


def _in_turns(ranked: np.ndarray, size: int) -> np.ndarray:
    """The first ``size`` positions that come up when each target takes its best that is left.

    Args:
        ranked: positions by similarity, best first, [targets, examples].
    """
    taken = np.zeros(ranked.shape[1], dtype=bool)
    places, chosen = [0] * len(ranked), list[int]()
    while len(chosen) < size:
        for target, order in enumerate(ranked[: size - len(chosen)]):
            while taken[order[places[target]]]:
                places[target] += 1
            best = int(order[places[target]])
            taken[best] = True
            chosen.append(best)
    return np.array(chosen, dtype=np.int64)
