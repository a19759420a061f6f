import hashlib
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence

from im_resources.gpu import GpuResource
from im_resources.language_model.batching import shuffled
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.lora import add_adapter, train_adapter
from im_resources.language_model.losses import output_losses
from im_resources.language_model.side_by_side import run_side_by_side
from im_resources.language_model.training import Training
from im_resources.study import FinetuningSettings
from tests.language_model.models import encoded_examples, plain_model

SETTINGS = FinetuningSettings(
    epochs=2, batch_size=2, learning_rate=2e-3, warmup_fraction=0, schedule="constant"
)


def lora_weights(adapter: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in adapter.named_parameters() if p.requires_grad}


def weights_hash(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def finetune(
    base: LoadedModel, seed: int, settings: FinetuningSettings = SETTINGS
) -> tuple[Training, dict[str, torch.Tensor]]:
    adapter = add_adapter(base, settings, seed)
    training = train_adapter(adapter, encoded_examples(base.tokenizer), settings, seed)
    return training, lora_weights(adapter)


def side_by_side(
    base: LoadedModel, seeds: list[int], workers: int, settings: FinetuningSettings = SETTINGS
) -> dict[int, tuple[Training, dict[str, torch.Tensor]]]:
    gpu = GpuResource(device="cpu", memory_fraction=0.95, side_by_side=workers)
    return dict(run_side_by_side(lambda seed: finetune(base, seed, settings), seeds, gpu))


def assert_same(
    one: tuple[Training, dict[str, torch.Tensor]], other: tuple[Training, dict[str, torch.Tensor]]
) -> None:
    assert one[0].losses == other[0].losses
    assert one[1].keys() == other[1].keys()
    for name, weight in one[1].items():
        assert torch.equal(weight, other[1][name]), name


@pytest.mark.model
def test_a_real_model_learns_and_its_base_stays_as_it_was(smol_model: LoadedModel) -> None:
    before = weights_hash(smol_model.model)
    encoded = encoded_examples(smol_model.tokenizer)
    untrained = output_losses(smol_model.model, encoded, 2048)
    settings = SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 5e-3})
    adapter = add_adapter(smol_model, settings, 0)
    train_adapter(adapter, encoded, settings, 0)  # three steps
    trained = output_losses(adapter.get_base_model(), encoded, 2048)
    assert trained.nll.sum() < 0.9 * untrained.nll.sum()
    assert weights_hash(smol_model.model) == before
    again = output_losses(smol_model.model, encoded, 2048)
    assert again.nll.tolist() == untrained.nll.tolist()  # nor did it get adapter layers


def test_training_is_a_plain_training_loop(tiny_model: LoadedModel, tiny_folder: Any) -> None:
    """The same LoRA weights, batches and optimizer in a loop over padded rows with labels."""
    settings = SETTINGS.model_copy(update={"weight_decay": 0.1, "max_grad_norm": 0.5})
    encoded = encoded_examples(tiny_model.tokenizer)
    adapter = add_adapter(tiny_model, settings, 3)
    plain = PeftModel(plain_model(tiny_folder), adapter.peft_config["default"])
    assert plain.load_state_dict(adapter.state_dict(), strict=True)
    ours = train_adapter(adapter, encoded, settings, 3)

    weights = [p for p in plain.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.1)
    losses = []
    for items in shuffled(encoded, 2, 2, torch.Generator().manual_seed(3)):
        rows = [torch.tensor([*encoded[i].prompt, *encoded[i].outputs[0]]) for i in items]
        labels = [row.clone() for row in rows]
        for row, i in zip(labels, items, strict=True):
            row[: len(encoded[i].prompt)] = -100
        loss = plain(
            input_ids=pad_sequence(rows, batch_first=True),
            attention_mask=pad_sequence([torch.ones_like(r) for r in rows], batch_first=True),
            labels=pad_sequence(labels, batch_first=True, padding_value=-100),
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert ours.losses == pytest.approx(losses, rel=1e-4)
    for (name, mine), theirs in zip(lora_weights(adapter).items(), weights, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4), name


def test_the_same_seed_gives_the_same_losses_and_weights_bit_for_bit(
    tiny_model: LoadedModel,
) -> None:
    first = finetune(tiny_model, 1)
    torch.rand(5)  # the state of the global generator does not matter
    assert_same(first, finetune(tiny_model, 1))
    other = finetune(tiny_model, 2)
    assert other[0].losses != first[0].losses
    assert any(weight.any() for name, weight in first[1].items() if "lora_B" in name)


def test_training_leaves_the_global_generator_alone(tiny_model: LoadedModel) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    finetune(tiny_model, 1)
    assert torch.equal(torch.rand(3), expected)


def test_seeds_side_by_side_train_as_if_each_were_alone(tiny_model: LoadedModel) -> None:
    before = weights_hash(tiny_model.model)
    together = side_by_side(tiny_model, [1, 2, 3, 4], workers=2)
    for seed in (1, 2, 3, 4):
        assert_same(together[seed], side_by_side(tiny_model, [seed], workers=1)[seed])
    assert weights_hash(tiny_model.model) == before


@pytest.mark.model
def test_a_real_models_seeds_train_side_by_side_as_if_alone(smol_model: LoadedModel) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1})
    together = side_by_side(smol_model, [1, 2], 2, settings)
    assert_same(together[2], side_by_side(smol_model, [2], 1, settings)[2])


def test_a_failed_seed_raises_and_threads_are_given_back() -> None:
    def work(seed: int) -> int:
        if seed == 1:
            raise RuntimeError("seed 1 failed")
        return seed

    gpu = GpuResource(device="cpu", memory_fraction=0.95, side_by_side=1)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="seed 1 failed"):
        list(run_side_by_side(work, [0, 1, 2], gpu))
    assert torch.get_num_threads() == threads


def test_replicas_hold_the_base_in_memory_once(tiny_model: LoadedModel) -> None:
    adapter = add_adapter(tiny_model, SETTINGS, 0)
    base = {p.data_ptr() for p in tiny_model.model.parameters()}
    mine = {p.data_ptr() for p in adapter.parameters() if not p.requires_grad}
    assert mine == base
    assert {b.data_ptr() for b in adapter.buffers()} == {
        b.data_ptr() for b in tiny_model.model.buffers()
    }
    # The base itself got no adapter layers.
    assert not any("lora" in name for name, _ in tiny_model.model.named_modules())


def test_only_the_chosen_modules_are_trained(tiny_model: LoadedModel) -> None:
    settings = SETTINGS.model_copy(update={"target_modules": ("down_proj",), "lora_rank": 4})
    weights = lora_weights(add_adapter(tiny_model, settings, 0))
    assert len(weights) == 4  # A and B in both layers
    assert all("down_proj" in name for name in weights)
    assert {min(weight.shape) for weight in weights.values()} == {4}


def test_gradient_checkpointing_trains_the_same(tiny_model: LoadedModel) -> None:
    settings = SETTINGS.model_copy(update={"gradient_checkpointing": True})
    with_it, without = finetune(tiny_model, 1, settings), finetune(tiny_model, 1)
    assert with_it[0].losses == pytest.approx(without[0].losses, rel=1e-6)
    # It is a matter of that adapter's modules; the next seed trains as set for it.
    assert finetune(tiny_model, 1)[0].losses == without[0].losses


def test_progress_reports_every_step(tiny_model: LoadedModel) -> None:
    calls: list[tuple[int, int, int]] = []
    adapter = add_adapter(tiny_model, SETTINGS, 0)
    encoded = encoded_examples(tiny_model.tokenizer)
    training = train_adapter(adapter, encoded, SETTINGS, 0, lambda *call: calls.append(call))
    assert [(step, steps) for step, steps, _ in calls] == [(k, 6) for k in range(1, 7)]
    assert len(training.losses) == 6
    assert sum(tokens for _, _, tokens in calls) == training.tokens
    assert training.tokens_per_second > 0


def test_a_loss_that_is_not_finite_stops_and_says_what_helps(tiny_model: LoadedModel) -> None:
    adapter = add_adapter(tiny_model, SETTINGS, 0)
    with torch.no_grad():
        next(p for p in adapter.parameters() if p.requires_grad).fill_(float("nan"))
    encoded = encoded_examples(tiny_model.tokenizer)
    # Before anything was learned, no learning rate can be the cause.
    with pytest.raises(FloatingPointError, match=r"nan at step 1 of 6, .*base model.*damaged"):
        train_adapter(adapter, encoded, SETTINGS, 0)
    adapter = add_adapter(tiny_model, SETTINGS, 0)

    def spoil(step: int, *_: int) -> None:
        with torch.no_grad():
            next(p for p in adapter.parameters() if p.requires_grad).fill_(float("nan"))

    with pytest.raises(FloatingPointError, match=r"nan at step 2 of 6.*learning_rate than 0.002"):
        train_adapter(adapter, encoded, SETTINGS, 0, spoil)
