"""The machine: GPU, precision, memory, disk."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from im_assets.doctor.findings import Finding, Level
from im_resources.gpu import usable_cores
from im_resources.study import Study

if TYPE_CHECKING:
    import torch

GIB = 2**30
MEMORY_LITTLE, MEMORY_NONE = 3.0, 1.0  # GiB to spare; the demo takes about 2
DISK_LITTLE, DISK_NONE = 5.0, 0.5  # GiB
ASK = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def device(study: Study | None) -> Iterator[Finding]:
    """Where models run and in which precision, and whether a GPU is there that torch cannot see."""
    area = "device"
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that is not there
        yield Finding("error", area, f"torch cannot be imported: {error}", "make install")
        return
    cards = nvidia_cards()
    build = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        yield Finding("ok", area, f"{build} sees {', '.join(names)}")
    elif cards and torch.version.cuda is None:
        yield Finding(
            "warning",
            area,
            f"{build} has no CUDA, but this machine has {'; '.join(cards)}: the CPU is used",
            'make distclean, then make install TORCH_BUILD="--index-url <index of a CUDA build>" '
            "(https://pytorch.org/get-started/locally/)",
        )
    elif cards:
        yield Finding(
            "warning",
            area,
            f"{build} is built for CUDA {torch.version.cuda} and sees no GPU, but this machine has "
            f"{'; '.join(cards)}: the CPU is used",
            "a newer driver, or a build for an older CUDA; CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}",
        )
    else:
        yield Finding("ok", area, f"{build} on the CPU, {usable_cores()} cores; no NVIDIA GPU")
    if study is not None:
        kind = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        yield Finding("ok", area, f"precision {_precision(study, kind)}")


def _precision(study: Study, kind: "torch.device") -> str:
    """What is set, and what ``auto`` is where it was measured; nothing is measured here."""
    from im_resources.language_model.loading import ModelError, locate
    from im_resources.language_model.precision import kept

    base = study.models.base
    if study.models.precision != "auto" or base is None:
        return study.models.precision
    try:
        found = kept(locate(base)[2], kind)
    except ModelError:  # said where the models are looked at
        return "auto"
    if found is None:
        return "auto: measured when the base model is first used on this machine"
    return (
        f"{found.choice(kind)} (auto: {found.bf16:.0f} tokens/s forward and backward in bf16, "
        f"{found.fp32:.0f} in fp32)"
    )


def nvidia_cards() -> list[str]:
    """The GPUs that the NVIDIA driver sees: name, memory, driver; none where there is no driver."""
    if shutil.which(ASK[0]) is None:
        return []
    try:
        done = subprocess.run(ASK, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def memory() -> Iterator[Finding]:
    """Memory to spare."""
    found = psutil.virtual_memory()
    free = found.available / GIB
    what = f"{free:.1f} of {found.total / GIB:.1f} GiB of memory to spare"
    less = (
        "close what takes it, or lower finetuning.batch_size, the tokens_per_batch of evaluation "
        "and scoring, or the GPU resource's side_by_side"
    )
    level: Level = _level(free, MEMORY_LITTLE, MEMORY_NONE, worst="warning")
    yield Finding(level, "memory", what, "" if level == "ok" else less)


def disk(*folders: Path) -> Iterator[Finding]:
    """Room on the disks that these folders are (or will be) on, each disk once."""
    seen = set()
    for folder in folders:
        there = next(p for p in (folder, *folder.parents) if p.exists())
        if there.stat().st_dev in seen:
            continue
        seen.add(there.stat().st_dev)
        free = shutil.disk_usage(there).free / GIB
        level = _level(free, DISK_LITTLE, DISK_NONE, worst="error")
        remedy = "" if level == "ok" else "free some, or set IM_HOME to a folder on another disk"
        yield Finding(level, "disk", f"{free:.1f} GiB free for {folder}", remedy)
        if not os.access(there, os.W_OK):
            remedy = "change its permissions, or set IM_HOME to another folder"
            yield Finding("error", "disk", f"{there} cannot be written to", remedy)


def _level(free: float, little: float, none: float, worst: Level) -> Level:
    return worst if free < none else "warning" if free < little else "ok"
