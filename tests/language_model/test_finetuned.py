"""What trainers leave behind is loaded again, or refused with a reason."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
)

from im_resources.language_model.finetuned import load_finetuned, save_whole, trainable_copy
from im_resources.language_model.loading import LoadedModel, ModelError, load_base
from im_resources.language_model.lora import add_adapter, train_adapter
from im_resources.language_model.losses import output_losses
from im_resources.language_model.training import train
from im_resources.study import FinetuningSettings, ModelSource
from tests.language_model.models import encoded_examples, plain_nll, write_model

SETTINGS = FinetuningSettings(
    epochs=2, batch_size=2, learning_rate=2e-3, warmup_fraction=0, schedule="constant"
)
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"vocab_size": 49152, "num_attention_heads": 4, "num_hidden_layers": 2}
GPT2 = (GPT2LMHeadModel, GPT2Config(vocab_size=49152, n_embd=64, n_layer=2, n_head=4))
MIXTRAL = (  # its experts have other names on disk than in memory
    MixtralForCausalLM,
    MixtralConfig(
        hidden_size=64, intermediate_size=64, num_key_value_heads=2, num_local_experts=4, **SMALL
    ),
)


@pytest.mark.parametrize(("architecture", "config"), [GPT2, MIXTRAL], ids=["gpt2", "mixtral"])
def test_whole_models_of_other_architectures_come_back_as_they_were_trained(
    tmp_path: Path, architecture: Any, config: Any
) -> None:
    folder = write_model(tmp_path / "base", architecture, config)
    base = load_base(ModelSource(path=str(folder)), "fp32", CPU)
    encoded = encoded_examples(base.tokenizer)
    model = trainable_copy(base)
    training = train(model, list(model.parameters()), encoded, SETTINGS, 0)
    assert training.losses[-1] < training.losses[0]
    save_whole(model, base, tmp_path / "full")
    losses = output_losses(load_finetuned(base, tmp_path / "full"), encoded, 2048)
    assert losses.nll.tolist() == output_losses(model, encoded, 2048).nll.tolist()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "full", dtype="auto").eval()
    expected = [plain_nll(plain, e.prompt, e.outputs[0]) for e in encoded]
    assert losses.nll.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_base_that_drops_activations_trains_the_same_twice(tmp_path: Path) -> None:
    base = load_base(ModelSource(path=str(write_model(tmp_path / "base", *GPT2))), "fp32", CPU)
    assert base.model.config.resid_pdrop > 0
    settings = SETTINGS.model_copy(update={"target_modules": ("c_attn",)})
    encoded = encoded_examples(base.tokenizer)
    first = train_adapter(add_adapter(base, settings, 0), encoded, settings, 0)
    torch.rand(5)
    again = train_adapter(add_adapter(base, settings, 0), encoded, settings, 0)
    assert first.losses == again.losses
    assert base.model.config.resid_pdrop > 0
    assert {m.p for m in base.model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}


def test_weights_of_a_copy_are_its_own_and_in_float32(tiny_folder: Path) -> None:
    base = load_base(ModelSource(path=str(tiny_folder)), "bf16", CPU)
    model = trainable_copy(base)
    shared = {p.data_ptr() for p in base.model.parameters()}
    assert not shared & {p.data_ptr() for p in model.parameters()}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in base.model.parameters())
    tied = model.get_output_embeddings().weight
    assert tied is model.get_input_embeddings().weight


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_quantized_base_has_no_weights_to_train(tiny_folder: Path, precision: str) -> None:
    base = load_base(ModelSource(path=str(tiny_folder)), precision, CPU)
    with pytest.raises(ModelError, match=rf"in {precision} .*finetuning.trainer to lora"):
        trainable_copy(base)


def test_dora_over_int8_on_a_cpu_says_what_works(tiny_folder: Path) -> None:
    dora = SETTINGS.model_copy(update={"use_dora": True})
    base = load_base(ModelSource(path=str(tiny_folder)), "int8", CPU)
    with pytest.raises(ModelError, match=r"use_dora.*precision to nf4"):
        add_adapter(base, dora, 0)
    base = load_base(ModelSource(path=str(tiny_folder)), "nf4", CPU)
    losses = train_adapter(
        add_adapter(base, dora, 0), encoded_examples(base.tokenizer), dora, 0
    ).losses
    assert all(loss > 0 for loss in losses)


def test_what_is_not_safetensors_or_does_not_fit_is_refused(
    tmp_path: Path, tiny_model: LoadedModel, tiny_folder: Path
) -> None:
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors and no model.safetensors"):
        load_finetuned(tiny_model, tmp_path)

    pickled = tmp_path / "pickled"
    add_adapter(tiny_model, SETTINGS, 0).save_pretrained(pickled)
    weights = load_file(pickled / "adapter_model.safetensors")
    torch.save(weights, pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors"):
        load_finetuned(tiny_model, pickled)

    lacking = Path(shutil.copytree(tiny_folder, tmp_path / "lacking"))
    whole = load_file(lacking / "model.safetensors")
    whole.pop("model.norm.weight")
    save_file(whole, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"(?s)does not fit the base model.*model.norm.weight"):
        load_finetuned(tiny_model, lacking)

    prompt = tmp_path / "prompt"
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(tiny_model.replica(), config).save_pretrained(str(prompt))
    with pytest.raises(ModelError, match=r"is a learned prompt"):
        load_finetuned(tiny_model, prompt)
