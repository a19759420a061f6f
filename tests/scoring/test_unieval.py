"""UniEval: the score of a plain forward pass, one question at a time, is what comes out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from transformers import T5Config, T5ForConditionalGeneration

from im_assets.scoring.indicators.unieval import coherence, naturalness, understandability
from im_assets.scoring.registry import BACKENDS, IndicatorError
from im_resources.language_model.loading import ModelError
from im_resources.language_model.unieval import dialogue_history, load_unieval, question
from im_resources.study import ModelSource
from tests.scoring.small_models import EXAMPLES, closed_tokenizer, scoring_batch

CPU = torch.device("cpu")
QUESTIONS = {
    "naturalness": naturalness,
    "coherence": coherence,
    "understandability": understandability,
}
HUB = "MingZhong/unieval-dialog"


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "t5"
    tokenizer = closed_tokenizer(folder)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        initializer_factor=1.0,
    )
    config.decoder_start_token_id = 0
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def literal_input(dimension: str, response: str, prompt: str) -> str:
    """The method's prompts, spelled out."""
    return {
        "naturalness": "question: Is this a natural response in the dialogue? </s> response: "
        + response,
        "coherence": "question: Is this a coherent response given the dialogue history? </s> "
        f"response: {response} </s> dialogue history: {prompt}\n\n",
        "understandability": "question: Is this an understandable response in the dialogue? </s> "
        "response: " + response,
    }[dimension]


def first_step(folder: Path, text: str) -> float:
    """P(Yes) / (P(Yes) + P(No)) by ``generate``, unpadded."""
    tokenizer = load_unieval(ModelSource(path=str(folder)), CPU).tokenizer
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    row = tokenizer(text, max_length=1024, truncation=True, return_tensors="pt")
    out = model.generate(
        input_ids=row["input_ids"],
        attention_mask=row["attention_mask"],
        max_new_tokens=1,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    chances = out.logits[0][0].double().softmax(-1)
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("Yes", "No"))
    return float(chances[yes] / (chances[yes] + chances[no]))


@pytest.mark.parametrize("dimension", QUESTIONS)
def test_scores_are_those_of_the_first_decoder_step(
    t5: Path, tmp_path: Path, dimension: str
) -> None:
    batch = scoring_batch(tmp_path, tokens_per_batch=400, unieval=str(t5))
    expected = [
        first_step(t5, literal_input(dimension, response, prompt))
        for prompt, response in zip(batch.prompts, EXAMPLES["output"], strict=True)
    ]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(QUESTIONS[dimension](batch), expected, atol=1e-6)


def test_padding_and_order_do_not_matter(t5: Path, tmp_path: Path) -> None:
    turned = EXAMPLES.iloc[::-1].reset_index(drop=True)
    alone = coherence(scoring_batch(tmp_path, tokens_per_batch=1, unieval=str(t5)))
    together = coherence(scoring_batch(tmp_path, tokens_per_batch=9999, unieval=str(t5)))
    other_way = coherence(scoring_batch(tmp_path, turned, 9999, unieval=str(t5)))
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(other_way[::-1], alone, atol=1e-6)


def test_a_long_input_is_cut_at_1024_tokens_and_stays_closed(t5: Path) -> None:
    model = load_unieval(ModelSource(path=str(t5)), CPU)
    text = question("naturalness", "ab" * 2000, "")
    assert (
        model.encode(text) == model.tokenizer(text, max_length=1024, truncation=True)["input_ids"]
    )
    np.testing.assert_allclose(model.score([text], 64), first_step(t5, text), atol=1e-6)


def test_turns_of_a_history_are_lines() -> None:
    assert dialogue_history(["Hi", "Hello"]) == "Hi\nHello\n\n"


def test_pickled_weights_are_refused(t5: Path) -> None:
    (t5 / "model.safetensors").rename(t5 / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*convert the checkpoint"):
        load_unieval(ModelSource(path=str(t5)), CPU)


def test_a_hub_model_out_of_reach_is_named() -> None:
    with pytest.raises(ModelError, match="nobody/no-such-model"):
        load_unieval(ModelSource(hub="nobody/no-such-model"), CPU)


def test_the_backends_are_registered_and_ask_for_their_model(tmp_path: Path) -> None:
    for dimension, score in QUESTIONS.items():
        assert BACKENDS.all()[f"unieval_{dimension}"].uses == ("unieval",)
        with pytest.raises(IndicatorError, match=r"models\.unieval"):
            score(scoring_batch(tmp_path))


@pytest.mark.slow
def test_the_published_example_of_the_real_model() -> None:
    """The example of UniEval's README, which is not ours to copy.

    IM_UNIEVAL_EXAMPLE names a JSON file: {"history": [turns], "response": text, "expected":
    {"naturalness": 0.950218, "coherence": 0.973135, "understandability": 0.946209}};
    IM_UNIEVAL_REVISION a commit of the model with safetensors.
    """
    revision = os.environ.get("IM_UNIEVAL_REVISION")
    if not isinstance(try_to_load_from_cache(HUB, "config.json", revision=revision), str):
        pytest.skip(f"{HUB} is not in the local cache")
    if "IM_UNIEVAL_EXAMPLE" not in os.environ:
        pytest.skip("IM_UNIEVAL_EXAMPLE names no file with the README's example")
    example = json.loads(Path(os.environ["IM_UNIEVAL_EXAMPLE"]).read_text(encoding="utf-8"))
    model = load_unieval(ModelSource(hub=HUB, revision=revision), CPU)
    history = dialogue_history(example["history"])
    asked = {d: question(d, example["response"], history) for d in example["expected"]}
    scores = dict(zip(asked, model.score(list(asked.values()), 2048), strict=True))
    assert scores == pytest.approx(example["expected"], abs=1e-5)
