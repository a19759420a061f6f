"""The cache of converted models: a GGUF file's weights as float32 safetensors, made on first use.

A conversion is published with the digests of its files beside them (``im_resources/published.py``).
Sizes are compared whenever a model is located, contents once a process before it is loaded: a
damaged conversion is made again and never used, since its results would look like any others.
"""

import logging
import os
from functools import cache
from pathlib import Path

from im_resources.language_model.side_by_side import stop_point
from im_resources.published import (
    DamagedFolder,
    check_files,
    claimed,
    explained,
    publish,
    read_manifest,
    sha256,
)
from im_resources.study import PROJECT_ROOT

log = logging.getLogger(__name__)


def model_cache() -> Path:
    """Where converted models are kept: ``$IM_MODEL_CACHE``, default ``.cache/models``."""
    return Path(os.environ.get("IM_MODEL_CACHE") or PROJECT_ROOT / ".cache" / "models").resolve()


def converted_folder(gguf: Path) -> Path:
    """Where the conversion of this file lies, or will."""
    return model_cache() / f"{gguf.stem}-{file_hash(gguf)}"


def dequantized(gguf: Path, contents: bool = False) -> Path:
    """The folder with a GGUF model's weights as float32 safetensors; made where it is not intact.

    Args:
        contents: whether to compare its files' contents too, and not their sizes alone.

    Raises DiskError when the conversion cannot be written.
    """
    target = converted_folder(gguf)
    if not conversion_fault(target, contents):
        return target
    with explained(f"cannot convert {gguf.name} into {target}", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with claimed(target.parent / f".lock-{target.name}", stop_point):
            if fault := conversion_fault(target, contents):  # another process may have been faster
                log.warning("%s: converting %s", fault, gguf.name)
                publish(
                    target,
                    target.parent / f".converting-{target.name}",
                    lambda work: _convert(gguf, work),
                    lambda: {"model": gguf.name},
                )
    return target


def conversion_fault(folder: Path, contents: bool) -> str | None:
    """Why the folder cannot be used; None when it can."""
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return (
                f"{folder} {'has no digests of its files' if folder.is_dir() else 'is not there'}"
            )
        check_files(folder, manifest, whole_hash if contents else None)
    except DamagedFolder as error:
        return str(error)
    return None


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        trust_remote_code=False,
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False
    )
    tokenizer.save_pretrained(folder)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, first 16 digits; a file that has not changed is read once a process."""
    return whole_hash(path)[:16]


def whole_hash(path: Path) -> str:
    """SHA-256 of a file, 64 digits; a file that has not changed is read once a process."""
    state = path.stat()
    return _digest_of(path, state.st_mtime_ns, state.st_size)


@cache
def _digest_of(path: Path, _mtime: int, _size: int) -> str:
    return sha256(path)
