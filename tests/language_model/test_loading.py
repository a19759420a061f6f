import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GraniteConfig, GraniteForCausalLM

from im_resources.language_model.converted import dequantized
from im_resources.language_model.loading import (
    ModelError,
    base_fingerprint,
    load_base,
    locate,
)
from im_resources.language_model.losses import output_losses
from im_resources.study import PROJECT_ROOT, ModelSource, load_study
from tests.killing import attacked
from tests.language_model.models import SHAPE, encoded_examples, plain_model, plain_nll, write_model
from tests.processes import wait_for

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
VOCABULARY = 6_000


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copied"))


def load(folder: Path, precision: str = "fp32") -> Any:
    return load_base(ModelSource(path=str(folder)), precision, CPU)


def key(folder: Path, precision: str = "fp32") -> str:
    return base_fingerprint(ModelSource(path=str(folder)), precision, CPU)


@pytest.mark.parametrize("package", ["no_such_package", "no_such.package", "os"])
def test_a_package_that_is_not_there_is_named(package: str) -> None:
    with pytest.raises(ModelError, match=rf"package '{package}' is not installed; see README"):
        locate(ModelSource(package=package, file="model.gguf"))


def test_a_file_that_a_package_lacks_is_named() -> None:
    with pytest.raises(ModelError, match=r"no model at .*yaml.no_such\.gguf"):
        locate(ModelSource(package="yaml", file="no_such.gguf"))


@pytest.mark.parametrize("name", ["no_such_folder", "no_such.gguf"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=re.escape(f"no model at {tmp_path / name}")):
        load(tmp_path / name)


def test_a_hub_model_is_not_fetched_offline() -> None:
    with pytest.raises(ModelError, match=r"cannot reach the hub for model 'none/such'.*`path`"):
        load_base(ModelSource(hub="none/such"), "fp32", CPU)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", None])
def test_pickled_weights_are_never_loaded(copied: Path, name: str | None) -> None:
    weights = load_file(copied / WEIGHTS)
    (copied / WEIGHTS).unlink()
    if name:
        torch.save(weights, copied / name)
    with pytest.raises(ModelError, match=r"no safetensors in .*copied"):
        load(copied)


@pytest.mark.parametrize("content", [slice(0, 1_000_000), slice(0, 4)])
def test_weights_that_were_cut_name_the_folder(copied: Path, content: slice) -> None:
    (copied / WEIGHTS).write_bytes((copied / WEIGHTS).read_bytes()[content])
    with pytest.raises(ModelError, match=r"cannot load model '.*copied'"):
        load(copied)


def test_weights_that_are_missing_are_named_and_not_made_up(copied: Path) -> None:
    weights = load_file(copied / WEIGHTS)
    del weights["model.layers.1.self_attn.q_proj.weight"]
    save_file(weights, copied / WEIGHTS, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights: model.layers.1.self_attn.q_proj.weight"):
        load(copied)


@pytest.mark.parametrize("name", ["config.json", "tokenizer*"])
def test_a_folder_without_config_or_tokenizer_is_named(copied: Path, name: str) -> None:
    for path in copied.glob(name):
        path.unlink()
    with pytest.raises(ModelError, match=r"cannot load model '.*copied'"):
        load(copied)


def test_a_model_that_changes_its_logits_is_refused(tmp_path: Path) -> None:
    """Its losses would be computed wrongly, and nobody would see."""
    config = GraniteConfig(vocab_size=49152, logits_scaling=8.0, **SHAPE)
    folder = write_model(tmp_path / "granite", GraniteForCausalLM, config)
    with pytest.raises(ModelError, match=r"granite' scales or caps its logits"):
        load(folder)


def test_architectures_beside_llama_have_their_own_losses(tmp_path: Path) -> None:
    """An unscaled Granite still multiplies embeddings, attention and residuals by its factors."""
    config = GraniteConfig(
        vocab_size=49152,
        embedding_multiplier=3.0,
        attention_multiplier=0.4,
        residual_multiplier=0.5,
        **SHAPE,
    )
    folder = write_model(tmp_path / "granite", GraniteForCausalLM, config)
    base, plain = load(folder), plain_model(folder)
    items = encoded_examples(base.tokenizer)[:2]
    expected = [plain_nll(plain, item.prompt, item.outputs[0]) for item in items]
    assert output_losses(base.model, items, 100).nll == pytest.approx(expected, rel=1e-5)


def test_the_fingerprint_is_what_changes_the_outputs(copied: Path, tiny_folder: Path) -> None:
    assert key(copied) == key(tiny_folder) == load(copied).fingerprint  # wherever it lies
    assert key(copied) != key(copied, "bf16")
    for name in ("chat_template.jinja", "tokenizer.json", "config.json", WEIGHTS):
        before = key(copied)
        content = (copied / name).read_bytes()
        (copied / name).write_bytes(content + b" ")
        assert key(copied) != before, name
        (copied / name).write_bytes(content)
        assert key(copied) == before


def test_a_loaded_model_is_frozen_and_in_the_asked_precision(tiny_folder: Path) -> None:
    base = load(tiny_folder, "bf16")
    assert base.precision == "bf16"
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in base.model.parameters())
    assert not base.model.training
    assert load(tiny_folder, "auto").precision in ("bf16", "fp32")


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    source = load_study("demo").models.needed("base")
    assert source.package is not None
    assert source.file is not None
    spec = importlib.util.find_spec(source.package)  # importing it would need what it runs on
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / source.file


@pytest.fixture(scope="session")
def one_layer(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's file with the first of its thirty layers and an eighth of its vocabulary."""
    reader = gguf.GGUFReader(demo_gguf)
    changed = {name: field.contents() for name, field in reader.fields.items()}
    tokens = changed["tokenizer.ggml.tokens"][:VOCABULARY]
    merges = [merge.split(" ") for merge in changed["tokenizer.ggml.merges"]]
    known = set(tokens)
    changed |= {
        "llama.block_count": 1,
        "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": changed["tokenizer.ggml.token_type"][:VOCABULARY],
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges if {a, b, a + b} <= known],
    }
    path = tmp_path_factory.mktemp("gguf") / "one-layer.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, changed[name], field.types[0], field.types[-1])
    for tensor in reader.tensors:
        if not tensor.name.startswith("blk.") or tensor.name.startswith("blk.0."):
            rows = slice(VOCABULARY if tensor.name == "token_embd.weight" else None)
            writer.add_tensor(tensor.name, tensor.data[rows], raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


CONVERT = """
import sys
from pathlib import Path
from im_resources.language_model.converted import dequantized
dequantized(Path(sys.argv[1]))
"""


@pytest.mark.model
@pytest.mark.slow
def test_a_killed_conversion_leaves_nothing_and_the_next_one_is_complete(
    one_layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("IM_MODEL_CACHE", str(cache))
    child = subprocess.Popen([sys.executable, "-c", CONVERT, str(one_layer)], cwd=PROJECT_ROOT)
    try:
        wait_for(lambda: any(cache.glob(f"*/{WEIGHTS}")), child)  # the tokenizer comes after it
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not [p for p in cache.iterdir() if not p.name.startswith(".")]

    folder = dequantized(one_layer)
    assert folder.parent == cache
    ours = load_file(folder / WEIGHTS)["model.embed_tokens.weight"]
    [table] = [t for t in gguf.GGUFReader(one_layer).tensors if t.name == "token_embd.weight"]
    assert np.array_equal(ours.numpy(), gguf.dequantize(table.data, table.tensor_type))
    base = load(folder)
    assert base.tokenizer.decode(base.tokenizer("Hello, naïve world")["input_ids"]) == (
        "Hello, naïve world"
    )
    # Made once; the next process finds it, and so does a copy of the file elsewhere.
    before = (folder / WEIGHTS).stat().st_mtime_ns
    copy = Path(shutil.copy(one_layer, tmp_path))
    assert dequantized(copy) == folder
    assert (folder / WEIGHTS).stat().st_mtime_ns == before


@pytest.mark.model
@pytest.mark.slow
def test_a_damaged_conversion_is_made_again_and_never_used(
    one_layer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("IM_MODEL_CACHE", str(tmp_path))
    weights = dequantized(one_layer) / WEIGHTS
    good, middle = weights.read_bytes(), weights.stat().st_size // 2
    zeroed = good[:middle] + bytes(4096) + good[middle + 4096 :]  # a page, and the size is right
    for damage, by_size in ((zeroed, False), (good[:middle], True), (None, True)):
        if damage is None:
            (weights.parent / "manifest.json").unlink()  # a conversion from before there were any
        else:
            weights.write_bytes(damage)
        caplog.clear()
        if not by_size:
            dequantized(one_layer)  # to know where it lies, sizes are enough …
            assert weights.read_bytes() == damage
        base = load_base(ModelSource(path=str(one_layer)), "fp32", CPU)  # … but not to load it
        assert "converting one-layer.gguf" in caplog.text
        assert weights.read_bytes() == good
        [table] = [t for t in gguf.GGUFReader(one_layer).tensors if t.name == "token_embd.weight"]
        expected = gguf.dequantize(table.data, table.tensor_type)
        assert np.array_equal(base.model.get_input_embeddings().weight.numpy(), expected)


@pytest.mark.model
@pytest.mark.slow
def test_no_kill_at_a_write_leaves_a_conversion_that_looks_complete(
    one_layer: Path, tmp_path: Path
) -> None:
    found = attacked("tests.language_model.models:converted", tmp_path, 8, str(one_layer))
    assert found["points"] >= 3
    assert found["differ"] == []


HUB = """
import sys, torch
from im_resources.language_model.loading import load_base
from im_resources.study import ModelSource
print(load_base(ModelSource(hub="some/model"), "fp32", torch.device("cpu")).fingerprint)
"""


def test_a_hub_model_that_is_damaged_is_refused_and_an_unpinned_one_told(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Its fingerprint is the commit, which a damaged file does not change."""
    cache, commit = tmp_path / "hub" / "models--some--model", "c" * 40
    snapshot = cache / "snapshots" / commit
    for folder in (snapshot, cache / "refs", cache / "blobs"):
        folder.mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    for path in tiny_folder.iterdir():
        blob = cache / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(blob)

    def loaded() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", HUB],
            cwd=PROJECT_ROOT,
            env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    good = loaded()
    assert good.returncode == 0, good.stderr
    assert "'some/model' is not pinned and may change under its name; to stay" in good.stderr
    assert f"revision: {commit}" in good.stderr
    blob = (snapshot / WEIGHTS).resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:100_000] + bytes(4096) + content[104_096:])
    damaged = loaded()
    assert damaged.returncode != 0
    assert re.search(rf"{WEIGHTS} is damaged.*delete {blob} and run again", damaged.stderr)
