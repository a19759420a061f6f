"""Operations by formula, against torch's own counter on real models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, LlamaConfig, MixtralConfig, T5Config

from im_resources.language_model.batching import collate
from im_resources.language_model.embedding import load_embedder
from im_resources.language_model.finetuned import trainable_copy
from im_resources.language_model.flops import (
    FlopsError,
    Load,
    Shape,
    forward_flops,
    shape_from,
    shape_of,
    training_flops,
)
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.lora import add_adapter, engine_for, train_adapter
from im_resources.language_model.losses import hidden_states, output_losses, token_nll
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.training import CHECKPOINTING, train
from im_resources.study import FinetuningSettings, load_study
from tests.language_model.models import SHAPE, encoded_examples

CPU = torch.device("cpu")
ATEN = torch.ops.aten


def _causal(query: Any, products: int) -> int:
    """Operations of so many products of a causal attention, by the shape of the queries."""
    rows, heads, tokens, size = query
    return products * rows * heads * size * tokens * (tokens + 1)


# The counter knows neither torch's attention for CPUs nor what adds to a matrix in its place; of
# other attentions it counts the whole square.
ATTENTION: dict[Any, Callable[..., int]] = {
    ATEN._scaled_dot_product_flash_attention_for_cpu: lambda q, *_, **__: _causal(q, 2),
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, *_, **__: _causal(q, 5),
    ATEN.addmm_: lambda _, a, b, *rest, **__: 2 * a[0] * a[1] * b[1],
}


def counted(work: Callable[[], Any]) -> int:
    """Operations of the work."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        work()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def shape() -> Shape:
    return shape_of(load_study("demo").models.needed("base"))


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[Encoded]:
    return encoded_examples(tokenizer)[:4]


def load_of(rows: list[Encoded]) -> Load:
    lengths = [row.length for row in rows]
    return Load.of_rows(lengths, [len(row.outputs[0]) for row in rows])


def test_the_shape_is_that_of_the_model_that_is_loaded(
    shape: Shape, smol_model: LoadedModel
) -> None:
    model = smol_model.model
    decoder = sum(p.numel() for p in model.get_decoder().layers.parameters() if p.dim() == 2)
    assert shape.weights == decoder
    assert shape.head == model.get_output_embeddings().weight.numel()
    assert shape.attention == 30 * 9 * 64


def test_a_forward_pass(shape: Shape, smol_model: LoadedModel, rows: list[Encoded]) -> None:
    output_losses(smol_model.replica(), rows[:1], 2048)  # also: what is tried once only
    found = counted(lambda: output_losses(smol_model.replica(), rows, 2048))
    assert forward_flops(shape, load_of(rows)) == pytest.approx(found, rel=0.02)


def test_a_long_row_whose_attention_counts(shape: Shape, smol_model: LoadedModel) -> None:
    row = [Encoded(tuple(range(5, 500)), (tuple(range(5, 105)),))]
    batch = collate([0], row, CPU)
    model = smol_model.replica()
    with torch.inference_mode():
        found = counted(lambda: token_nll(model, hidden_states(model, batch), batch.target))
    expected = forward_flops(shape, load_of(row))
    assert expected == pytest.approx(found, rel=0.02)
    assert 4 * shape.attention * load_of(row).pairs > 0.05 * expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": True},
        {"target_modules": ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj"), "lora_rank": 64},
        {"target_modules": ("down_proj",)},
    ],
    ids=["queries and values", "checkpointing", "a large adapter", "high in the layer"],
)
def test_a_training_of_an_adapter(
    changes: dict[str, Any], shape: Shape, smol_model: LoadedModel, rows: list[Encoded]
) -> None:
    settings = FinetuningSettings(epochs=1, batch_size=len(rows), **changes)
    adapter = add_adapter(smol_model, settings, seed=0)
    engine = engine_for(adapter, settings, max(row.length for row in rows))
    found = counted(lambda: train_adapter(adapter, rows, settings, 0, engine=engine))
    assert training_flops(shape, load_of(rows), settings) == pytest.approx(found, rel=0.02)
    # What the adapter adds to the forward pass that it is measured by.
    own = forward_flops(shape, load_of(rows), settings) - forward_flops(shape, load_of(rows))
    weights = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    assert own == 2 * weights * load_of(rows).tokens


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_of_all_weights(
    checkpointing: bool, tiny_model: LoadedModel, rows: list[Encoded]
) -> None:
    shape = shape_from(tiny_model.model.config)
    settings = FinetuningSettings(
        trainer="full", epochs=2, batch_size=1, gradient_checkpointing=checkpointing
    )
    model = trainable_copy(tiny_model)
    if checkpointing:
        model.activation_checkpointing_enable(CHECKPOINTING)
    found = counted(lambda: train(model, list(model.parameters()), rows, settings, seed=0))
    expected = training_flops(shape, load_of(rows) * 2, settings)
    assert expected == pytest.approx(found, rel=0.02)


def test_embedding() -> None:
    source = load_study("demo").models.needed("embedding")
    text = "The quick brown fox jumps over the lazy dog, and runs on into the wood. " * 4
    embedder = load_embedder(source, CPU)
    tokens = len(embedder.model.tokenizer(text)["input_ids"])
    found = counted(lambda: embedder.embed([text]))
    shape = shape_of(source, causal=False)
    # This counter counts the causal half of what attends to all.
    mine = Load(tokens, tokens * (tokens + 1) / 2)
    assert forward_flops(shape, mine) == pytest.approx(found, rel=0.02)
    assert Load.of_texts([tokens]).pairs == tokens**2


def test_outputs_that_share_a_prompt_attend_to_it_and_to_themselves() -> None:
    # Prompt of 3, two outputs of 2: 1+2+3, and for each output 4+5.
    assert Load.of_prompts([7], [4], [2]) == Load(7, 6 + 9 + 9, 4)
    assert Load.of_prompts([5, 7], [2, 4], [1, 1]) == Load.of_rows([5, 7], [2, 4])


def test_what_the_formulas_do_not_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FlopsError, match="mixtral sends not every token"):
        shape_from(MixtralConfig(**SHAPE))
    with pytest.raises(FlopsError, match="t5 sends not every token"):
        shape_from(T5Config(), causal=False)
    LlamaConfig(**SHAPE).save_pretrained(tmp_path)
    shape = shape_from(AutoConfig.from_pretrained(tmp_path))
    with pytest.raises(FlopsError, match="'mine' computes is not known"):
        training_flops(shape, Load.of_rows([3]), FinetuningSettings(trainer="mine"))
