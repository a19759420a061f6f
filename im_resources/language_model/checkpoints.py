"""Checkpoints of a training under way: a finetune that is killed goes on where it was.

What is left after a kill is the base, which is frozen, and one file: trained weights and AdamW's
moments as safetensors; losses, tokens, seconds and the schedule as JSON in its metadata. It
replaces the one before by rename. What the order of the batches is drawn from, the only random
thing in a training, is drawn again and compared. A file that is damaged, or of another training, is
told and left out, and the training starts over: it never goes on from wrong weights.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from im_resources.published import explained, sync
from im_resources.study import FinetuningSettings, fingerprint

# Changes when a checkpoint of before could not be gone on from.
VERSION = 2
log = logging.getLogger(__name__)


@dataclass
class Position:
    """How far a training is: loss of each step done, tokens computed, wall seconds."""

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class _Keeping:
    """Where the trainings of one trial are kept; a trainer may call ``train`` several times."""

    folder: Path
    trial: str
    every: float  # seconds
    trainings: int = 0


_KEEPING: ContextVar[_Keeping | None] = ContextVar("keeping", default=None)


@contextmanager
def checkpointed(folder: Path, trial: str, minutes: float | None) -> Iterator[None]:
    """Trainings inside are checkpointed into ``folder`` every so many minutes; None: never.

    They go on from what is there. Holds for this thread.
    """
    keeping = None if minutes is None else _Keeping(folder, trial, 60 * minutes)
    token = _KEEPING.set(keeping)
    try:
        yield
    finally:
        _KEEPING.reset(token)


def checkpoint_of(
    model: Any,
    weights: Sequence[torch.Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    settings: FinetuningSettings,
    *drawn: Any,
) -> "Checkpoint | None":
    """The checkpoint of a training that begins now; None where none is wanted.

    Args:
        drawn: what the training was drawn to be (seed, plan, …): with another, it is another one.
    """
    keeping = _KEEPING.get()
    if keeping is None:
        return None
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [known.get(id(weight), f"weight {i}") for i, weight in enumerate(weights)]
    shapes = [(list(w.shape), str(w.dtype), w.device.type) for w in weights]
    number = keeping.trainings
    keeping.trainings += 1
    key = fingerprint(VERSION, keeping.trial, number, settings, names, shapes, drawn)
    path = keeping.folder / f"{number}.safetensors"
    named = dict(zip(names, weights, strict=True))
    return Checkpoint(path, key, keeping.every, named, optimizer, schedule)


@dataclass
class Checkpoint:
    """One training's state on disk, and when it is due again."""

    path: Path
    key: str
    every: float
    weights: dict[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    schedule: Any
    last: float = field(default_factory=time.monotonic)

    def save_if_due(self, position: Position) -> None:
        """Write the state if the last one is ``every`` seconds old, in place of that one.

        Raises DiskError when the disk cannot take it.
        """
        if time.monotonic() - self.last < self.every:
            return
        from safetensors.torch import save_file

        tensors = {f"weight/{name}": weight.detach() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state[weight].items():
                tensors[f"{key}/{name}"] = value
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        state = json.dumps({**vars(position), "schedule": self.schedule.state_dict()})
        facts = {"key": self.key, "state": state, "digest": _digest(tensors, self.key, state)}
        work = self.path.with_suffix(".writing")
        with explained(f"cannot write the checkpoint {self.path}", self.path.parent.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_file(tensors, work, facts)
                sync(work)
                os.replace(work, self.path)
                sync(self.path.parent)
            finally:
                work.unlink(missing_ok=True)
        self.last = time.monotonic()

    def resume(self) -> Position:
        """Bring weights, optimizer and schedule to where they were, and say where that is.

        Without a checkpoint, or with one that cannot be used, nothing is changed.
        """
        if not self.path.is_file():
            return Position()
        from safetensors import SafetensorError

        try:
            tensors, state = self._read()
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is no checkpoint to go on from: %s; starting over", self.path, error)
            return Position()
        schedule = state.pop("schedule")
        packed: dict[int, dict[str, torch.Tensor]] = {}
        with torch.no_grad():
            for number, (name, weight) in enumerate(self.weights.items()):
                weight.copy_(tensors.pop(f"weight/{name}"))
                end = f"/{name}"
                mine = {key.removesuffix(end): t for key, t in tensors.items() if key.endswith(end)}
                if mine:
                    packed[number] = mine
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": packed})
        self.schedule.load_state_dict(schedule)
        for group, rate in zip(
            self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True
        ):
            group["lr"] = rate
        position = Position(**state)
        log.warning("going on from %s after step %d", self.path, len(position.losses))
        return position

    def _read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(tensors, facts["key"], facts["state"]) != facts["digest"]:
            raise ValueError("it is damaged")
        if facts["key"] != self.key:
            raise ValueError("it is of another training")
        return tensors, json.loads(facts["state"])


def _digest(tensors: dict[str, torch.Tensor], *texts: str) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of the tensors, and the texts."""
    digest = hashlib.sha256(json.dumps(texts).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
