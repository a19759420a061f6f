"""Reward models: the logit of the checkpoint itself, one text at a time, is what comes out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from im_assets.scoring.indicators.reward_model import reward_model
from im_assets.scoring.registry import BACKENDS, IndicatorError
from im_resources.language_model import reward_model as module
from im_resources.language_model.loading import ModelError
from im_resources.language_model.reward_model import LoadedRewardModel, load_reward_model
from im_resources.study import ModelSource
from tests.scoring.small_models import EXAMPLES, byte_tokenizer, pair_tokenizer, scoring_batch

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
    "num_labels": 1,
}
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|endoftext|>{% endfor %}"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A decoder with one logit, whose tokenizer has a padding token and no chat template."""
    torch.manual_seed(1)
    folder = tmp_path / "llama"
    tokenizer = byte_tokenizer(
        folder, ["<|endoftext|>", "<pad>"], eos_token="<|endoftext|>", pad_token="<pad>"
    )
    config = LlamaConfig(**SMALL, pad_token_id=tokenizer.pad_token_id)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def load(folder: Path) -> LoadedRewardModel:
    return load_reward_model(ModelSource(path=str(folder)), CPU)


def test_a_decoder_without_template_reads_one_text(llama: Path, tmp_path: Path) -> None:
    batch = scoring_batch(tmp_path, reward=str(llama))
    model = LlamaForSequenceClassification.from_pretrained(llama).eval()
    tokenizer = load(llama).tokenizer
    expected = []
    for prompt, output in zip(batch.prompts, EXAMPLES["output"], strict=True):
        ids = tokenizer(f"{prompt}\n\n{output}", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected.append(model(ids).logits.item())
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(reward_model(batch), expected, atol=1e-5)


@pytest.mark.parametrize("padding_token", [True, False])
def test_a_chat_template_is_used(llama: Path, tmp_path: Path, padding_token: bool) -> None:
    (llama / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    if not padding_token:
        config = json.loads((llama / "config.json").read_text())
        (llama / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    batch = scoring_batch(tmp_path, reward=str(llama))
    model = LlamaForSequenceClassification.from_pretrained(llama).eval()
    tokenizer = load(llama).tokenizer
    expected = []
    for prompt, output in zip(batch.prompts, EXAMPLES["output"], strict=True):
        text = f"[user]{prompt}<|endoftext|>[assistant]{output}<|endoftext|>"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected.append(model(ids).logits.item())
    np.testing.assert_allclose(reward_model(batch), expected, atol=1e-5)


def test_an_encoder_reads_a_pair_of_segments(tmp_path: Path) -> None:
    torch.manual_seed(2)
    tokenizer = pair_tokenizer(tmp_path / "bert")
    config = BertConfig(**SMALL | {"max_position_embeddings": 300})
    bert = BertForSequenceClassification(config).eval()
    bert.save_pretrained(tmp_path / "bert")
    batch = scoring_batch(tmp_path, reward=str(tmp_path / "bert"))
    expected = []
    for prompt, output in zip(batch.prompts, EXAMPLES["output"], strict=True):
        row = tokenizer(prompt, output, return_tensors="pt")
        assert bool(row["token_type_ids"].any()) == bool(output)
        with torch.no_grad():
            expected.append(bert(**row).logits.item())
    np.testing.assert_allclose(reward_model(batch), expected, atol=1e-5)
    cut = load(tmp_path / "bert").encode("p" * 400, "r" * 400)  # 297 letters beside three marks
    assert len(cut["input_ids"]) == 300
    assert cut["token_type_ids"].count(1) == 147 + 1


def test_a_cut_keeps_the_frame_of_the_template(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (llama / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    monkeypatch.setattr(module, "MAX_TOKENS", 100)
    model = load(llama)
    for prompt, reply in [("ab好" * 90, "cd"), ("ab", "cd你" * 90), ("你" * 99, "好" * 99)]:
        ids = model.encode(prompt, reply)["input_ids"]
        assert 80 < len(ids) <= 100
        text = model.tokenizer.decode(ids)
        head, tail = text.split("[assistant]")
        assert head.startswith("[user]")
        assert head.endswith(
            prompt[-5:] + "<|endoftext|>" if len(prompt) > 5 else "ab<|endoftext|>"
        )
        assert tail.startswith(reply[:2])
        assert tail.endswith("<|endoftext|>")
        assert "\ufffd" not in text


def test_a_model_with_two_logits_is_refused(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path, ["<pad>"], pad_token="<pad>")
    config = LlamaConfig(**SMALL | {"num_labels": 2})
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has 2 logits"):
        load(tmp_path)


def test_the_backend_is_registered_and_asks_for_its_model(tmp_path: Path) -> None:
    assert BACKENDS.all()["reward_model"].uses == ("reward",)
    with pytest.raises(IndicatorError, match=r"models\.reward"):
        reward_model(scoring_batch(tmp_path))
