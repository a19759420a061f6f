from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, FalconConfig

from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.losses import HEAD_CHUNK, OutputLosses, output_losses
from im_resources.language_model.packable import tell_padded
from im_resources.language_model.prompts import Encoded, encode
from tests.language_model.models import EXAMPLES, plain_nll

TEXTS = [output for _, _, output in EXAMPLES]


def several_outputs(tokenizer: Any, count: int) -> list[Encoded]:
    """Instructions with one, two, three … reference outputs."""
    return [
        encode(tokenizer, "plain", instruction, context, TEXTS[: k + 1], 64)
        for k, (instruction, context, _) in enumerate(EXAMPLES[:count])
    ]


def assert_like_plain_transformers(
    losses: OutputLosses, items: list[Encoded], plain: Any, tolerance: float
) -> None:
    expected = [plain_nll(plain, item.prompt, output) for item in items for output in item.outputs]
    assert losses.nll == pytest.approx(expected, rel=tolerance)
    assert losses.tokens.tolist() == [len(output) for item in items for output in item.outputs]
    assert losses.item.tolist() == [k for k, item in enumerate(items) for _ in item.outputs]
    assert losses.output.tolist() == [j for item in items for j in range(len(item.outputs))]


@pytest.mark.parametrize("tokens_per_batch", [1, 100, 10_000])
def test_losses_are_those_of_plain_transformers(
    tiny_model: LoadedModel, tiny_plain: Any, tokens_per_batch: int
) -> None:
    items = several_outputs(tiny_model.tokenizer, 6)
    losses = output_losses(tiny_model.model, items, tokens_per_batch)
    assert_like_plain_transformers(losses, items, tiny_plain, 1e-5)


@pytest.mark.model
def test_losses_of_a_real_model_are_those_of_plain_transformers(
    smol_model: LoadedModel, smol_plain: Any
) -> None:
    items = several_outputs(smol_model.tokenizer, 4)
    losses = output_losses(smol_model.model, items, 400)
    assert_like_plain_transformers(losses, items, smol_plain, 1e-5)
    right, wrong = losses.nll[0], losses.nll[(losses.item == 1) & (losses.output == 0)]
    assert right < wrong  # "Paris." answers the first question, not the second


def test_more_response_tokens_than_are_projected_at_once(
    tiny_model: LoadedModel, tiny_plain: Any
) -> None:
    ids = torch.randint(3, 40_000, (700,), generator=torch.Generator().manual_seed(0)).tolist()
    items = [Encoded((5, 6, 7), (tuple(ids), tuple(ids[:30]))), Encoded((8,), (tuple(ids[:9]),))]
    assert sum(len(o) for e in items for o in e.outputs) > HEAD_CHUNK
    losses = output_losses(tiny_model.model, items, 10_000)
    assert_like_plain_transformers(losses, items, tiny_plain, 1e-5)


def test_pooled_states_are_the_layers_mean_where_the_response_is_predicted(
    tiny_model: LoadedModel, tiny_plain: Any
) -> None:
    items = several_outputs(tiny_model.tokenizer, 3)
    losses = output_losses(tiny_model.model, items, 100, layer=1)
    assert losses.pooled is not None
    expected = []
    for item in items:
        for output in item.outputs:
            ids = torch.tensor([[*item.prompt, *output]])
            with torch.no_grad():
                states = tiny_plain(input_ids=ids, output_hidden_states=True).hidden_states[1][0]
            cut = len(item.prompt)
            expected.append(states[cut - 1 : cut - 1 + len(output)].mean(0).numpy())
    assert losses.pooled == pytest.approx(np.stack(expected), abs=1e-4)
    # The layer is read on the way: nothing stays attached to the shared model.
    assert output_losses(tiny_model.model, items, 100).pooled is None


def test_progress_reaches_the_end_and_counts_the_tokens(tiny_model: LoadedModel) -> None:
    items = several_outputs(tiny_model.tokenizer, 6)
    calls: list[tuple[int, int, int]] = []
    output_losses(tiny_model.model, items, 100, on_batch=lambda *call: calls.append(call))
    assert [batch for batch, _, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, total, _ in calls} == {len(calls)}
    assert sum(tokens for _, _, tokens in calls) >= sum(item.length for item in items)


def test_nothing_to_evaluate_is_no_error(tiny_model: LoadedModel) -> None:
    assert output_losses(tiny_model.model, [], 100).nll.tolist() == []


# Few kinds of tokens, so that rows begin alike now and then, by one token or by many.
TEXT = st.lists(st.sampled_from([5, 6]), min_size=1, max_size=4)
PROMPT = st.tuples(st.sampled_from([[], [7] * 20, [7] * 20 + [8] * 30]), TEXT)
INSTRUCTION = st.builds(
    lambda prompt, outputs: Encoded((*prompt[0], *prompt[1]), tuple(map(tuple, outputs))),
    PROMPT,
    st.lists(st.lists(st.integers(3, 9), min_size=1, max_size=12), min_size=1, max_size=3),
)


@given(items=st.lists(INSTRUCTION, min_size=1, max_size=6), budget=st.sampled_from([1, 90, 10_000]))
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_row_has_the_loss_of_plain_transformers_whatever_its_neighbours_begin_with(
    tiny_model: LoadedModel, tiny_plain: Any, items: list[Encoded], budget: int
) -> None:
    losses = output_losses(tiny_model.model, items, budget)
    assert_like_plain_transformers(losses, items, tiny_plain, 1e-5)


def test_what_rows_begin_with_is_computed_once(tiny_model: LoadedModel) -> None:
    template = tuple(range(100, 140))
    items = [Encoded((*template, k), ((5, 6), (8,))) for k in range(4)]
    tokens: list[int] = []
    output_losses(tiny_model.model, items, 10_000, on_batch=lambda *call: tokens.append(call[2]))
    # Of each instruction, two rows: its own last token of the prompt is too little to share.
    assert sum(tokens) == 40 + 4 * (1 + 2 + 1 + 1)


def test_the_model_itself_stays_as_it_is(tiny_model: LoadedModel, tiny_plain: Any) -> None:
    items = several_outputs(tiny_model.tokenizer, 2)
    output_losses(tiny_model.model, items, 100, layer=1)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        got, want = tiny_model.model(input_ids=ids).logits, tiny_plain(input_ids=ids).logits
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_an_architecture_that_cannot_be_packed_is_padded_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = FalconConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    items = [Encoded((5, 6, 7), ((8, 9, 10),)), Encoded((11,), ((12, 13),))]
    tell_padded.cache_clear()
    losses = output_losses(model, items, 10_000)
    assert_like_plain_transformers(losses, items, model, 1e-5)
    assert "FalconForCausalLM is evaluated on padded batches" in caplog.text
