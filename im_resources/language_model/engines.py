"""Several engines beside each other, each on CPU cores of its own.

Two cores that share each small matrix product wait for the slower one at the end of each: where
something else runs on the machine, that is most of the time. An engine a core waits for nobody.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from im_resources.language_model.prompts import Encoded
from im_resources.language_model.together import Engine
from im_resources.language_model.training import OnStep, Training
from im_resources.study import FinetuningSettings


@dataclass(frozen=True)
class Choice:
    """Engines beside each other, adapters at once in each, CPU threads of each, and tokens a second
    of all of them. 0 threads: as torch has it."""

    engines: int
    adapters: int
    threads: int
    tokens_per_second: float = 0.0

    @property
    def at_once(self) -> int:
        """Adapters that train at the same time."""
        return self.engines * self.adapters

    @classmethod
    def asked(cls, adapters: int, cores: int) -> "Choice":
        """So many adapters at once, whatever is fastest: on a CPU an engine each, a core each."""
        engines = max(1, min(adapters, cores))
        return cls(engines, -(-adapters // engines), cores // engines)

    def for_fewer(self, trainings: int, cores: int) -> "Choice":
        """The same for so many trainings, which may not need every engine."""
        engines = max(1, min(self.engines, trainings))
        if engines == self.engines:
            return self
        return replace(self, engines=engines, threads=cores // engines)


class Engines:
    """Gives each training to the engine that has fewest under way."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._under_way = dict.fromkeys(engines, 0)
        self._lock = threading.Lock()

    def train(
        self,
        adapter: Any,
        encoded: Sequence[Encoded],
        settings: FinetuningSettings,
        seed: int,
        on_step: OnStep | None = None,
    ) -> Training:
        """Finetune the adapter in place; see ``Engine.train``."""
        with self._lock:
            engine = min(self._under_way, key=self._under_way.__getitem__)
            self._under_way[engine] += 1
        try:
            return engine.train(adapter, encoded, settings, seed, on_step)
        finally:
            with self._lock:
                self._under_way[engine] -= 1


def rate_of(
    engines: Sequence[Engine],
    adapters: Sequence[Sequence[Any]],
    rows: Sequence[Encoded],
    settings: FinetuningSettings,
) -> float:
    """Tokens a second of all engines together, each with its adapters, all at the same time.

    Raises what a step raises, an allocator's refusal among others.
    """
    if len(engines) == 1:
        return engines[0].rate(adapters[0], rows, settings)
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(len(engines)) as pool:
            found = [
                pool.submit(engine.rate, mine, rows, settings)
                for engine, mine in zip(engines, adapters, strict=True)
            ]
            return sum(future.result() for future in found)
    finally:
        torch.set_num_threads(before)
