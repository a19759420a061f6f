"""int8 and nf4 (bitsandbytes) on the CPU.

nf4 once did not learn at all when an evaluation ran first: on AVX512-BF16 machines bitsandbytes
repacks the weights for a kernel without a backward pass. Other machines cannot show it.
"""

from pathlib import Path

import pytest
import torch

from im_resources.language_model.loading import LoadedModel, load_base
from im_resources.language_model.lora import add_adapter, train_adapter
from im_resources.language_model.losses import output_losses
from im_resources.study import FinetuningSettings, ModelSource
from tests.language_model.models import encoded_examples

SETTINGS = FinetuningSettings(
    epochs=6, batch_size=3, learning_rate=1e-2, warmup_fraction=0, schedule="constant"
)


@pytest.fixture(params=["int8", "nf4"])
def quantized(request: pytest.FixtureRequest, tiny_folder: Path) -> LoadedModel:
    return load_base(ModelSource(path=str(tiny_folder)), request.param, torch.device("cpu"))


def test_a_quantized_base_learns_also_after_an_evaluation(quantized: LoadedModel) -> None:
    encoded = encoded_examples(quantized.tokenizer)
    fresh = add_adapter(quantized, SETTINGS, 0)
    first = train_adapter(fresh, encoded, SETTINGS, 0)
    before = output_losses(quantized.replica(), encoded, 2048)
    # Every state a model may be in when training starts: base and adapter have evaluated before.
    output_losses(quantized.model, encoded, 2048)
    adapter = add_adapter(quantized, SETTINGS, 0)
    output_losses(adapter.get_base_model(), encoded, 2048)
    second = train_adapter(adapter, encoded, SETTINGS, 0)
    after = output_losses(adapter.get_base_model(), encoded, 2048)
    assert after.nll.sum() < 0.9 * before.nll.sum()
    assert second.losses == pytest.approx(first.losses, rel=1e-3)
    again = output_losses(quantized.model, encoded, 2048)  # and the base is what it was
    assert again.nll == pytest.approx(before.nll, rel=1e-6)


def test_a_quantized_base_is_close_to_the_whole_one(
    quantized: LoadedModel, tiny_model: LoadedModel
) -> None:
    encoded = encoded_examples(tiny_model.tokenizer)
    exact = output_losses(tiny_model.model, encoded, 2048).nll.sum()
    assert output_losses(quantized.model, encoded, 2048).nll.sum() == pytest.approx(exact, rel=0.1)
    assert quantized.fingerprint != tiny_model.fingerprint


def test_quantized_gradient_checkpointing_trains_the_same(quantized: LoadedModel) -> None:
    encoded = encoded_examples(quantized.tokenizer)
    settings = SETTINGS.model_copy(update={"epochs": 2})
    checkpointed = settings.model_copy(update={"gradient_checkpointing": True})
    losses = [
        train_adapter(add_adapter(quantized, s, 0), encoded, s, 0).losses
        for s in (settings, checkpointed)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_quantized_replicas_hold_the_base_in_memory_once(quantized: LoadedModel) -> None:
    output_losses(quantized.model, encoded_examples(quantized.tokenizer), 2048)
    one, other = quantized.replica(), quantized.replica()
    base = {p.data_ptr() for p in quantized.model.parameters()}
    for replica in (one, other):
        assert {p.data_ptr() for p in replica.parameters()} == base
