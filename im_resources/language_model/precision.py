"""Which number format ``precision: auto`` is: measured on this machine, once, and kept.

Whether bfloat16 is faster than float32 depends on the processor: with AMX, and on GPUs since
Ampere, it is several times; with AVX-512 alone some are faster and some slower. So a forward and
backward pass is timed in both, in the shapes of the base model.

The answer changes results and is therefore part of the base's fingerprint. It is kept in the model
cache, and found there by every process: a measurement that was made again could differ.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from im_resources.language_model.converted import model_cache
from im_resources.language_model.linear_cross_entropy import linear_cross_entropy
from im_resources.language_model.memory import release
from im_resources.language_model.side_by_side import Stopped, stop_point
from im_resources.published import claimed, replace_text
from im_resources.study import fingerprint

log = logging.getLogger(__name__)

# Changes when what was measured before says nothing of the training step now.
VERSION = 1
# bfloat16 has to be so much faster on a CPU; on a GPU it also halves the memory, and may be slower.
GAIN = {"cpu": 1.1, "cuda": 0.9}
# As many blocks of the model as have so many parameters, and one at least.
PARAMETERS = 40_000_000
ROWS = {"cpu": 4, "cuda": 16}
PROMPT, RESPONSE = 48, 80  # tokens: a usual instruction
REPEATS = 2


@dataclass(frozen=True)
class Speeds:
    """Tokens a second of a pass forward and backward in each format."""

    fp32: float
    bf16: float

    def choice(self, device: torch.device) -> str:
        """The format to use."""
        return "bf16" if self.bf16 > GAIN.get(device.type, 1.1) * self.fp32 else "fp32"


def chosen(place: str, revision: str | None, weights: str, device: torch.device) -> str:
    """``fp32`` or ``bf16`` for this model on this device; measured where it was not yet.

    Args:
        place, revision: hub id or folder, of which the configuration is read.
        weights: their fingerprint.
    """
    speeds = _known(place, revision, weights, device)
    if speeds is None:  # what is measured again and again could be decided in two ways
        return "bf16" if device.type == "cuda" and native_bf16() else "fp32"
    return speeds.choice(device)


def native_bf16() -> bool:
    """Whether the GPU multiplies bfloat16 itself."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def kept(weights: str, device: torch.device) -> Speeds | None:
    """What was measured before."""
    return _read(_path(weights, device))


@cache
def _known(place: str, revision: str | None, weights: str, device: torch.device) -> Speeds | None:
    path = _path(weights, device)
    if (found := _read(path)) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with claimed(path.with_name(f".lock-{path.stem}"), stop_point):
            if (found := _read(path)) is not None:  # another process has measured meanwhile
                return found
            found = measure(place, revision, device)
            replace_text(path, json.dumps(asdict(found)))
    except Stopped:  # nothing was decided
        raise
    except Exception as error:
        log.warning("precision: auto cannot be measured and kept in %s: %s", path, error)
        return None
    log.warning(
        "precision: auto is %s: %.0f tokens a second forward and backward in bf16, %.0f in fp32",
        found.choice(device),
        found.bf16,
        found.fp32,
    )
    return found


def _read(path: Path) -> Speeds | None:
    try:
        return Speeds(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none yet, or damaged
        return None


def _path(weights: str, device: torch.device) -> Path:
    machine: Any = torch.cpu.get_capabilities()
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    key = fingerprint(VERSION, weights, device.type, machine)
    return model_cache() / f"precision-{key}.json"


def measure(place: str, revision: str | None, device: torch.device) -> Speeds:
    """Time passes through a model of this configuration, with random weights, in both formats."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    size = 12 * config.get_text_config().hidden_size ** 2  # parameters of a block, about
    blocks = max(1, min(config.get_text_config().num_hidden_layers, PARAMETERS // size))
    config.get_text_config().num_hidden_layers = blocks
    best = {"fp32": 0.0, "bf16": 0.0}
    steps = {
        "fp32": _step(config, torch.float32, device),
        "bf16": _step(config, torch.bfloat16, device),
    }
    for _ in range(REPEATS):  # by turns: what else the machine does meets both
        for name, step in steps.items():
            best[name] = max(best[name], step())
    del steps
    release(device)
    return Speeds(round(best["fp32"], 1), round(best["bf16"], 1))


def _step(config: Any, dtype: torch.dtype, device: torch.device) -> Callable[[], float]:
    """A pass forward and backward, as training makes it; returns its tokens a second."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(
        vocabulary, (ROWS.get(device.type, 4), PROMPT + RESPONSE), generator=generator
    ).to(device)
    answers = ids[:, PROMPT:].reshape(-1)
    share = torch.full(answers.shape, 1 / len(answers), device=device)

    def step() -> float:
        start = time.perf_counter()
        inputs = model.get_input_embeddings()(ids).requires_grad_()
        states = model.get_decoder()(inputs_embeds=inputs, use_cache=False).last_hidden_state
        said = states[:, PROMPT - 1 : -1].reshape(len(answers), -1)
        total, _ = linear_cross_entropy(model.get_output_embeddings(), said, answers, share)
        total.backward()
        float(inputs.grad.sum())  # waits for a GPU
        return float(ids.numel() / (time.perf_counter() - start))

    step()  # what is done once only
    return step
