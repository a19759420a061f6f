"""Open-Assistant's reward checkpoints: the same logit as by hand, and their rules of cutting."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXModel

from im_assets.scoring.indicators.reward_model import reward_model
from im_resources.language_model.loading import ModelError
from im_resources.language_model.reward_model import LoadedRewardModel, load_reward_model
from im_resources.study import ModelSource
from tests.scoring.small_models import EXAMPLES, byte_tokenizer, scoring_batch

# As a config.json of that age spells it; a rotary share that is no default shows that it is read.
CONFIG: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.5,
    "rotary_emb_base": 5000,
    "initializer_range": 0.3,
}


def body() -> GPTNeoXModel:
    return GPTNeoXModel(GPTNeoXConfig(**CONFIG)).eval()


@pytest.fixture
def oasst(tmp_path: Path) -> Path:
    """An Open-Assistant reward checkpoint: ``gpt_neox.*`` and ``out_proj.*``."""
    torch.manual_seed(0)
    weights = {f"gpt_neox.{k}": v.contiguous() for k, v in body().state_dict().items()}
    # What checkpoints of that age also hold.
    weights["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    weights["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(1)
    weights["out_proj.weight"] = torch.randn(1, 32)
    weights["out_proj.bias"] = torch.tensor([0.7])
    folder = tmp_path / "oasst"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = CONFIG | {
        "model_type": "gpt_neox_reward_model",
        "architectures": ["GPTNeoXRewardModel"],
        "pooling": "last",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    specials = ["<|endoftext|>", "<|prompter|>", "<|assistant|>"]
    byte_tokenizer(folder, specials, eos_token="<|endoftext|>")
    return folder


def load(folder: Path) -> LoadedRewardModel:
    return load_reward_model(ModelSource(path=str(folder)), torch.device("cpu"))


def expected_oasst(folder: Path, ids: list[int]) -> float:
    """The checkpoint's logit by hand: a plain body, no padding, no mask."""
    weights = load_file(folder / "model.safetensors")
    plain = body()
    own = {
        k.removeprefix("gpt_neox."): v
        for k, v in weights.items()
        if not k.endswith(("masked_bias", "inv_freq"))
    }
    plain.load_state_dict({k: v for k, v in own.items() if not k.startswith("out_proj")})
    with torch.no_grad():
        state = plain(torch.tensor([ids])).last_hidden_state[0, -1]
    return float(weights["out_proj.weight"][0] @ state + weights["out_proj.bias"][0])


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 4096])
def test_an_oasst_checkpoint_gives_its_own_logit(
    oasst: Path, tmp_path: Path, tokens_per_batch: int
) -> None:
    batch = scoring_batch(tmp_path, tokens_per_batch=tokens_per_batch, reward=str(oasst))
    tokenizer = load(oasst).tokenizer
    texts = [
        f"<|prompter|>{prompt}<|endoftext|><|assistant|>{output}<|endoftext|>"
        for prompt, output in zip(batch.prompts, EXAMPLES["output"], strict=True)
    ]
    expected = [expected_oasst(oasst, tokenizer(text)["input_ids"]) for text in texts]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(reward_model(batch), expected, atol=1e-5)


def test_an_example_keeps_its_score_in_other_company(oasst: Path, tmp_path: Path) -> None:
    whole = reward_model(scoring_batch(tmp_path, reward=str(oasst)))
    turned = EXAMPLES.iloc[::-1].reset_index(drop=True)
    again = reward_model(scoring_batch(tmp_path, turned, reward=str(oasst)))
    alone = reward_model(scoring_batch(tmp_path, EXAMPLES.iloc[[1]], reward=str(oasst)))
    np.testing.assert_allclose(again[::-1], whole, atol=1e-5)
    np.testing.assert_allclose(alone, whole[[1]], atol=1e-5)


def test_a_long_oasst_pair_loses_the_prompts_start_then_the_replys_end(oasst: Path) -> None:
    model = load(oasst)
    assert model.limit == 2048

    def parts(prompt: str, reply: str) -> tuple[list[int], list[int], list[int]]:
        said = model.tokenizer(f"<|prompter|>{prompt}<|endoftext|>")["input_ids"]
        answer = model.tokenizer(f"<|assistant|>{reply}<|endoftext|>")["input_ids"]
        return said, answer, model.encode(prompt, reply)["input_ids"]

    said, answer, ids = parts("#" * 3000, "%" * 90)
    assert len(answer) == 92
    assert ids == said[-1956:] + answer
    said, answer, ids = parts("#" * 3000, "%" * 3000)
    assert ids == said[-256:] + answer[:1792]
    assert np.isfinite(model.score(["#" * 3000], ["%" * 3000], 64)).all()


def test_pickled_weights_are_refused(oasst: Path) -> None:
    torch.save(load_file(oasst / "model.safetensors"), oasst / "pytorch_model.bin")
    (oasst / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*convert the checkpoint"):
        load(oasst)


def test_a_checkpoint_without_its_head_is_refused(oasst: Path) -> None:
    weights = load_file(oasst / "model.safetensors")
    del weights["out_proj.weight"]
    save_file(weights, oasst / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks out_proj\.weight"):
        load(oasst)


def test_only_last_token_pooling_is_known(oasst: Path) -> None:
    config = json.loads((oasst / "config.json").read_text())
    (oasst / "config.json").write_text(json.dumps(config | {"pooling": "mean"}))
    with pytest.raises(ModelError, match="pools by 'mean'"):
        load(oasst)
