"""How many adapters to train at once, and on how many threads: measured, and kept.

More adapters in a step fill the machine better, until they do not, or until memory ends; where that
is depends on the machine, the base and the settings. The answer is kept beside the converted
models: it changes how fast a study is, and nothing else.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from im_resources.language_model.converted import model_cache
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.lora import add_adapter
from im_resources.language_model.memory import is_refused, release
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.together import Engine
from im_resources.published import replace_text
from im_resources.study import FinetuningSettings, fingerprint
from im_resources.usage import uncounted

# Changes when what was measured before says nothing of the engine now.
VERSION = 1
FILE = "side-by-side.json"
MOST = {"cpu": 8, "cuda": 16}
# Twice as many adapters have to be so much faster; fewer hold less memory, and end sooner.
GAIN = 1.04
# What a step takes, as a multiple of what it keeps for its backward pass.
MARGIN = 1.5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """Adapters at once, CPU threads for them (0: as torch has it), and tokens a second of these."""

    adapters: int
    threads: int
    tokens_per_second: float


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
        choice.adapters,
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
    adapters = [add_adapter(base, settings, 0)]
    engine = Engine(adapters[0], settings, max_length)
    threads = [0]
    if base.device.type == "cpu":
        threads = [cores] if cores < 4 else [cores, cores // 2]
    before, found = torch.get_num_threads(), []
    try:
        for number in threads:
            torch.set_num_threads(number or before)
            found.append((engine.rate(adapters, rows, settings), 1, number))
        best = max(found)
        torch.set_num_threads(best[2] or before)
        while 2 * best[1] <= MOST.get(base.device.type, 1):
            if MARGIN * 2 * best[1] * engine.kept / len(adapters) > _free(base.device):
                break
            while len(adapters) < 2 * best[1]:
                adapters.append(add_adapter(base, settings, len(adapters)))
            try:
                rate = engine.rate(adapters, rows, settings)
            except Exception as error:
                if not is_refused(error):
                    raise
                break
            if rate < GAIN * best[0]:
                break
            best = (rate, len(adapters), best[2])
    finally:
        torch.set_num_threads(before)
    del adapters, engine
    release(base.device)
    return Choice(best[1], best[2], round(best[0], 1))


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
