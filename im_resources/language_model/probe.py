"""How many adapters to train at once, in how many engines on how many threads: measured, and kept.

More adapters in a step fill the machine better, until they do not, or until memory ends; where that
is depends on the machine, the base and the settings. The answer is kept beside the converted
models: it changes how fast a study is, and nothing else.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from im_resources.language_model.converted import model_cache
from im_resources.language_model.engines import Choice, rate_of
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.lora import add_adapter
from im_resources.language_model.memory import is_refused, release
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.together import Engine
from im_resources.published import replace_text
from im_resources.study import FinetuningSettings, fingerprint
from im_resources.usage import uncounted

# Changes when what was measured before says nothing of the engine now.
VERSION = 2
FILE = "side-by-side.json"
# Adapters in the steps of one engine. On a CPU a core is full with one (measured: 1.01 of its speed
# with two), and each has then the numbers that it has alone, to the last bit.
MOST = {"cpu": 1, "cuda": 16}
# Twice as many adapters have to be so much faster; fewer hold less memory, and end sooner.
GAIN = 1.04
# What a step takes, as a multiple of what it keeps for its backward pass.
MARGIN = 1.5
log = logging.getLogger(__name__)


def side_by_side(
    base: LoadedModel,
    settings: FinetuningSettings,
    max_length: int,
    rows: Sequence[Encoded],
    cores: int,
) -> Choice:
    """What was measured for this machine, base and settings; measured now for the first time.

    Args:
        rows: some of the study's, whose lengths are those that count; one batch is taken.
        cores: of the CPU, that may be used.
    """
    kept, key = model_cache() / FILE, _key(base, settings, max_length, cores)
    known = _read(kept)
    if key in known:
        return Choice(**known[key])
    start = time.perf_counter()
    with uncounted():
        choice = _measure(base, settings, max_length, list(rows[: settings.batch_size]), cores)
    log.warning(
        "%d adapters are trained at once: %.0f tokens a second, measured in %.0f s",
        choice.at_once,
        choice.tokens_per_second,
        time.perf_counter() - start,
    )
    _write(kept, _read(kept) | {key: asdict(choice)})
    return choice


def _measure(
    base: LoadedModel,
    settings: FinetuningSettings,
    max_length: int,
    rows: list[Encoded],
    cores: int,
) -> Choice:
    trial = _Trial(base, settings, max_length, rows)
    best = trial.rated(Choice(1, 1, cores))
    # As fast is enough: what shares no product with others waits for none of them.
    while base.device.type == "cpu" and 2 * best.engines <= cores:
        engines = 2 * best.engines
        more = trial.tried(Choice(engines, 1, cores // engines))
        if more is None or more.tokens_per_second * GAIN < best.tokens_per_second:
            break
        best = more
    while 2 * best.adapters <= MOST.get(base.device.type, 1):
        more = trial.tried(replace(best, adapters=2 * best.adapters))
        if more is None or more.tokens_per_second < GAIN * best.tokens_per_second:
            break
        best = more
    del trial
    release(base.device)
    return replace(best, tokens_per_second=round(best.tokens_per_second, 1))


class _Trial:
    """Engines and adapters to measure with, made as they are needed."""

    def __init__(
        self, base: LoadedModel, settings: FinetuningSettings, max_length: int, rows: list[Encoded]
    ) -> None:
        self.base, self.settings, self.max_length, self.rows = base, settings, max_length, rows
        self._adapters: list[list[Any]] = []
        self._engines: list[Engine] = []
        self._kept = 0.0  # bytes, by the step of one adapter, as last measured

    def tried(self, choice: Choice) -> Choice | None:
        """With its tokens a second; None if memory does not suffice, or would not."""
        if MARGIN * choice.at_once * self._kept > _free(self.base.device):
            return None
        try:
            return self.rated(choice)
        except Exception as error:
            if not is_refused(error):
                raise
            return None
        finally:
            release(self.base.device)

    def rated(self, choice: Choice) -> Choice:
        """With its tokens a second. Raises what a step raises."""
        while len(self._engines) < choice.engines:
            self._adapters.append([add_adapter(self.base, self.settings, 0)])
            self._engines.append(Engine(self._adapters[-1][0], self.settings, self.max_length))
        engines = self._engines[: choice.engines]
        for engine, mine in zip(engines, self._adapters, strict=False):
            engine.threads = choice.threads
            while len(mine) < choice.adapters:
                mine.append(add_adapter(self.base, self.settings, len(mine)))
        adapters = [mine[: choice.adapters] for mine in self._adapters[: choice.engines]]
        rate = rate_of(engines, adapters, self.rows, self.settings)
        self._kept = engines[0].kept / choice.adapters
        return replace(choice, tokens_per_second=rate)


def _free(device: torch.device) -> float:
    """Bytes that can be had without harm. A GPU refuses what it has not; a CPU's kernel does not,
    and ends the process instead."""
    if device.type != "cpu":
        return float("inf")
    import psutil

    return float(psutil.virtual_memory().available)


def _key(base: LoadedModel, settings: FinetuningSettings, max_length: int, cores: int) -> str:
    machine: Callable[[], Any] = torch.cpu.get_capabilities
    if base.device.type == "cuda":
        machine = lambda: str(torch.cuda.get_device_properties(base.device))  # noqa: E731
    lora = (settings.lora_rank, settings.target_modules, settings.use_dora)
    what = (base.fingerprint, lora, settings.batch_size, settings.gradient_checkpointing)
    return fingerprint(VERSION, machine(), cores, torch.__version__, what, max_length)


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: it is measured again
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    """Replace the file; where the disk refuses, it is measured again the next time."""
    try:
        replace_text(path, json.dumps(known, indent=1))
    except OSError as error:
        log.warning("cannot keep what was measured in %s: %s", path, error)
