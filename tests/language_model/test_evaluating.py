"""Adapters evaluated in shared passes have the losses that each has alone, and in plain PEFT."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from im_resources.language_model.evaluating import at_once, losses_under
from im_resources.language_model.finetuned import load_finetuned, save_whole, trainable_copy
from im_resources.language_model.loading import LoadedModel, ModelError, load_base
from im_resources.language_model.lora import add_adapter
from im_resources.language_model.losses import output_losses
from im_resources.language_model.prompts import Encoded
from im_resources.study import FinetuningSettings, ModelSource
from tests.language_model.models import plain_nll
from tests.language_model.test_packing import encoded

SETTINGS = FinetuningSettings(learning_rate=2e-3)
ITEMS = [
    Encoded((*range(20, 50), 1 + k), (one.outputs[0], one.outputs[0][::-1][: 1 + k]))
    for k, one in enumerate(encoded(1, 3 + 2 * k, k) for k in range(5))
]


def adapters(base: LoadedModel, folder: Path, number: int, **changed: Any) -> list[Path]:
    """Folders of adapters that change what the base says, each otherwise."""
    settings = SETTINGS.model_copy(update=changed)
    for seed in range(number):
        adapter = add_adapter(base, settings, seed)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in adapter.named_parameters():
            if "lora_B" in name:
                weight.data = torch.randn(weight.shape, generator=generator) * 0.3
        adapter.save_pretrained(folder / str(seed))
    return [folder / str(seed) for seed in range(number)]


KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "every layer": {"target_modules": ("q_proj", "o_proj", "gate_proj", "down_proj")},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 2, 5])
def test_together_each_has_the_losses_of_plain_peft(
    tiny_model: LoadedModel, tiny_plain: Any, tmp_path: Path, kind: str, number: int
) -> None:
    folders = adapters(tiny_model, tmp_path, number, **KINDS[kind])
    tokens: list[int] = []
    found = losses_under(tiny_model, folders, ITEMS, 10_000, lambda *call: tokens.append(call[2]))
    assert len(tokens) == 1  # one pass for all
    assert len(found) == number
    for folder, losses in zip(folders, found, strict=True):
        plain = PeftModel.from_pretrained(copy.deepcopy(tiny_plain), str(folder)).eval()
        want = [plain_nll(plain, item.prompt, output) for item in ITEMS for output in item.outputs]
        assert losses.nll == pytest.approx(want, rel=1e-5)
        [alone] = losses_under(tiny_model, [folder], ITEMS, 40)
        assert losses.nll == pytest.approx(alone.nll, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "int8", "nf4"])
def test_in_coarser_precisions_the_difference_is_rounding(
    tiny_folder: Path, tmp_path: Path, precision: str
) -> None:
    base = load_base(ModelSource(path=str(tiny_folder)), precision, torch.device("cpu"))
    folders = adapters(base, tmp_path, 3)
    for folder, losses in zip(folders, losses_under(base, folders, ITEMS, 10_000), strict=True):
        alone = output_losses(load_finetuned(base, folder), ITEMS, 40)
        assert losses.nll.sum() == pytest.approx(alone.nll.sum(), rel=0.02)


def test_a_whole_model_beside_an_adapter_has_passes_of_its_own(
    tiny_model: LoadedModel, tmp_path: Path
) -> None:
    [folder] = adapters(tiny_model, tmp_path, 1)
    model = trainable_copy(tiny_model)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").mul_(2)
    save_whole(model, tiny_model, tmp_path / "whole")
    adapted, whole = losses_under(tiny_model, [folder, tmp_path / "whole"], ITEMS, 10_000)
    assert adapted.nll == pytest.approx(
        losses_under(tiny_model, [folder], ITEMS, 10_000)[0].nll, rel=1e-5
    )
    assert whole.nll == pytest.approx(output_losses(model, ITEMS, 10_000).nll, rel=1e-5)


def test_adapters_of_other_layers_are_not_mixed_up(tiny_model: LoadedModel, tmp_path: Path) -> None:
    folders = [
        *adapters(tiny_model, tmp_path / "a", 1),
        *adapters(tiny_model, tmp_path / "b", 1, target_modules=("o_proj",)),
    ]
    for folder, losses in zip(
        folders, losses_under(tiny_model, folders, ITEMS, 10_000), strict=True
    ):
        [alone] = losses_under(tiny_model, [folder], ITEMS, 10_000)
        assert losses.nll == pytest.approx(alone.nll, rel=1e-5)


def test_what_is_no_finetune_is_named(tiny_model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folders = [*adapters(tiny_model, tmp_path, 1), tmp_path / "empty"]
    with pytest.raises(ModelError, match="empty"):
        losses_under(tiny_model, folders, ITEMS, 100)


def test_on_a_cpu_each_adapter_has_passes_of_its_own(tiny_model: LoadedModel) -> None:
    assert at_once(tiny_model, ITEMS, 10**6) == 1
