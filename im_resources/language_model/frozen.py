"""Loading the models that only score: a reward model, UniEval.

They are often older checkpoints, published as pickles, for model classes that have changed since.
Hence the rules: safetensors only, no remote code, and every weight has to be in the checkpoint.
"""

from pathlib import Path
from typing import Any

import torch

from im_resources.language_model.loading import ModelError, check_download, hub_snapshot, locate
from im_resources.study import ModelSource, resolve_path
from im_resources.usage import count

# What a scoring model needs of a hub repository: pickles are not even downloaded.
FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]


def weights_folder(source: ModelSource) -> Path:
    """The local folder with a model's config, tokenizer and safetensors; downloads a hub model.

    Raises ModelError when it is missing or holds no safetensors.
    """
    if source.hub is not None:
        # A folder, and not the name: for a name without safetensors, from_pretrained asks a service
        # to convert it and loads what that proposes, a commit that the study's key does not name
        # (transformers 5, safetensors_conversion.py).
        folder = hub_snapshot(source.hub, source.revision, FILES)
        check_download(folder)
    elif source.path is not None:
        folder = resolve_path(source.path)
    else:
        folder = Path(locate(source, contents=True)[0])
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        found = f" (found {', '.join(pickles)})" if pickles else ""
        raise ModelError(
            f"no safetensors for model {source.hub or folder}{found}; pickled weights are never "
            "loaded, since they can run code: convert the checkpoint to safetensors and give the "
            "folder as `path`, or name the hub's own conversion as `revision` (often refs/pr/1)"
        )
    return folder


def load_frozen(
    folder: Path, architecture: Any, dtype: torch.dtype, device: torch.device
) -> tuple[Any, Any]:
    """A model of the class ``architecture``, frozen and in evaluation mode, and its tokenizer.

    Raises ModelError when either cannot be read, or when the checkpoint lacks some weight of that
    class (transformers would fill it with random numbers and go on).
    """
    from transformers import AutoTokenizer

    try:
        model, report = architecture.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            folder, config=model.config, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load model {folder}: {error}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{folder} is no complete {type(model).__name__}: it lacks {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        )
    if not tokenizer.is_fast:
        raise ModelError(f"{folder} has no tokenizer.json, which cutting long texts needs")
    tokenizer(
        ""
    )  # lifts a cut or padding saved in tokenizer.json before threads share the tokenizer
    model.requires_grad_(False)
    return model.to(device).eval(), tokenizer


def padded(
    rows: list[list[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of the rows, padded on the right, both int64 [rows, width]."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    count(tokens=ids.numel())
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids.to(device), mask.to(device)
