"""The GPU resource: the device that is used, and models that are loaded once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from im_resources.gpu import GpuResource
from im_resources.language_model.lora import add_adapter, train_adapter
from im_resources.language_model.losses import output_losses
from im_resources.study import FinetuningSettings, ModelSource, Study
from tests.language_model.models import encoded_examples, plain_nll


def study(folder: Path, **models: Any) -> Study:
    data = {"path": "unused.jsonl"}
    base = {"path": str(folder)}
    return Study.model_validate(
        {
            "name": "test",
            "data": {"candidates": {"a": data}, "unseen": data, "evaluation": data},
            "models": {"base": base, "embedding": base, **models},
            "scoring": {"indicators": {"len_out": "response_length"}},
        }
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_an_error_and_not_a_slow_run(
    device: str, tiny_folder: Path
) -> None:
    gpu = GpuResource(device=device)
    asked = rf"'{device}' was asked for, but torch .* sees no CUDA GPU; set .* to auto or cpu"
    for use in (gpu.torch_device, lambda: gpu.base_model(study(tiny_folder))):
        with pytest.raises(RuntimeError, match=asked):
            use()


def test_auto_takes_what_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert GpuResource().torch_device().type == expected
    assert GpuResource(device="cpu").torch_device() == torch.device("cpu")


def test_adapters_side_by_side_are_one_a_core_unless_set() -> None:
    assert GpuResource(device="cpu").workers >= 1
    assert GpuResource(device="cpu", side_by_side=3).workers == 3
    with pytest.raises(ValueError, match="side_by_side"):
        GpuResource(side_by_side=-1)


def test_the_base_is_loaded_once_for_all_assets_and_threads(tiny_folder: Path) -> None:
    fp32 = study(tiny_folder, precision="fp32")
    gpus = [GpuResource(device="cpu") for _ in range(4)]  # as every step of a run gets its own
    with ThreadPoolExecutor(4) as pool:
        bases = list(pool.map(lambda gpu: gpu.base_model(fp32), gpus))
    assert all(base is bases[0] for base in bases)
    assert bases[0].fingerprint == gpus[0].base_fingerprint(fp32)
    bf16 = study(tiny_folder, precision="bf16")
    assert gpus[0].base_model(bf16) is not bases[0]
    assert gpus[0].base_fingerprint(bf16) != bases[0].fingerprint


def test_other_models_are_loaded_once_under_their_kind(tiny_folder: Path) -> None:
    gpu, source = GpuResource(device="cpu"), ModelSource(path=str(tiny_folder))
    first = gpu.owned("test_kind", source, object)
    assert GpuResource(device="cpu").owned("test_kind", source, object) is first
    assert gpu.owned("other_kind", source, object) is not first


def test_a_failed_load_is_tried_again(tiny_folder: Path) -> None:
    source = ModelSource(path=str(tiny_folder))

    def fail() -> object:
        raise OSError("connection reset")

    with pytest.raises(OSError, match="connection reset"):
        GpuResource(device="cpu").owned("flaky", source, fail)
    assert GpuResource(device="cpu").owned("flaky", source, lambda: "loaded") == "loaded"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4"])
def test_a_gpu_computes_the_same_losses_and_learns(
    tiny_folder: Path, tiny_plain: Any, precision: str
) -> None:
    base = GpuResource(device="cuda").base_model(study(tiny_folder, precision=precision))
    encoded = encoded_examples(base.tokenizer)
    losses = output_losses(base.replica(), encoded, 200)
    expected = [plain_nll(tiny_plain, item.prompt, item.outputs[0]) for item in encoded]
    tolerance = {"fp32": 1e-3, "bf16": 0.05}.get(precision, 0.15)
    assert losses.nll == pytest.approx(expected, rel=tolerance)
    settings = FinetuningSettings(epochs=8, batch_size=3, learning_rate=1e-2, warmup_fraction=0)
    adapters = [add_adapter(base, settings, 0) for _ in range(2)]
    first, second = (train_adapter(adapter, encoded, settings, 0).losses for adapter in adapters)
    assert first[-1] < 0.9 * first[0]
    assert second == pytest.approx(first, rel=1e-2)


@pytest.mark.gpu
def test_the_memory_fraction_is_a_limit() -> None:
    gpu = GpuResource(device="cuda", memory_fraction=0.01)
    try:
        device = gpu.torch_device()
        total = torch.cuda.get_device_properties(device).total_memory
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(total // 50, dtype=torch.uint8, device=device)
    finally:
        GpuResource(device="cuda").torch_device()
