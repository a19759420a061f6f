from math import ceil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from im_resources.language_model.batching import by_length, collate, shuffled
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.losses import output_losses
from im_resources.language_model.prompts import Encoded, encode
from tests.language_model.models import EXAMPLES

# Row ids differ from item to item, so that a mixed-up batch shows.
IDS = st.integers(3, 40_000)
PROMPT = st.lists(IDS, min_size=1, max_size=24).map(tuple)
OUTPUT = st.lists(IDS, min_size=1, max_size=10).map(tuple)
ITEM = st.builds(Encoded, PROMPT, st.lists(OUTPUT, min_size=1, max_size=4).map(tuple))
ITEMS = st.lists(ITEM, max_size=20)
few = settings(max_examples=60, deadline=None)
with_model = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few
@given(items=ITEMS, budget=st.integers(1, 400))
def test_by_length_covers_every_item_once_within_the_budget(
    items: list[Encoded], budget: int
) -> None:
    plan = list(by_length(items, budget))
    assert sorted(i for batch in plan for i in batch) == list(range(len(items)))
    for batch in plan:
        padded = len(batch) * max(items[i].length for i in batch)
        assert padded <= budget or len(batch) == 1


@few
@given(
    items=st.lists(ITEM, min_size=1, max_size=50),
    size=st.integers(1, 6),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_shuffled_covers_every_item_once_an_epoch_and_only_the_generator_decides(
    items: list[Encoded], size: int, epochs: int, seed: int
) -> None:
    plan = shuffled(items, size, epochs, torch.Generator().manual_seed(seed))
    steps = ceil(len(items) / size)
    assert len(plan) == steps * epochs
    for epoch in range(epochs):
        batches = plan[epoch * steps : (epoch + 1) * steps]
        assert sorted(i for batch in batches for i in batch) == list(range(len(items)))
        assert max(map(len, batches)) <= size
    torch.rand(3)  # what others draw from the global generator does not matter
    assert plan == shuffled(items, size, epochs, torch.Generator().manual_seed(seed))


def test_shuffled_epochs_differ_and_waste_little_on_padding() -> None:
    lengths = (
        torch.randn(400, generator=torch.Generator().manual_seed(0)).exp().mul(40).clamp(5, 256)
    )
    items = [Encoded((1,), ((2,) * int(n),)) for n in lengths]
    plan = shuffled(items, 8, 2, torch.Generator().manual_seed(1))
    first, second = plan[:50], plan[50:]
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))
    sizes = [max(items[i].length for i in batch) for batch in first]
    assert sizes != sorted(sizes)  # no curriculum from short to long
    padded = sum(len(batch) * size for batch, size in zip(first, sizes, strict=True))
    assert padded < 1.4 * sum(item.length for item in items)  # random batches: 2.5


@few
@given(items=st.lists(ITEM, min_size=1, max_size=6))
def test_every_response_token_and_nothing_else_is_a_target(items: list[Encoded]) -> None:
    batch = collate(range(len(items)), items, torch.device("cpu"))
    assert batch.tokens == len(items) * max(item.length for item in items)
    expected = [
        (k, j, token) for k, e in enumerate(items) for j, o in enumerate(e.outputs) for token in o
    ]
    found = zip(batch.row.tolist(), batch.output.tolist(), batch.target.tolist(), strict=True)
    assert list(found) == expected


@with_model
@given(items=st.lists(ITEM, min_size=1, max_size=6))
def test_responses_that_share_a_prompt_have_the_loss_of_rows_of_their_own(
    tiny_model: LoadedModel, items: list[Encoded]
) -> None:
    shared = output_losses(tiny_model.model, items, 10_000)
    apart = output_losses(tiny_model.model, one_row_an_output(items), 10_000)
    assert shared.nll == pytest.approx(apart.nll, rel=1e-5, abs=1e-4)
    assert shared.tokens.tolist() == apart.tokens.tolist()


@with_model
@given(items=st.lists(ITEM, min_size=2, max_size=6))
def test_padding_changes_nothing(tiny_model: LoadedModel, items: list[Encoded]) -> None:
    together = output_losses(tiny_model.model, items, 10_000)
    alone = output_losses(tiny_model.model, items, 1)
    assert together.nll == pytest.approx(alone.nll, rel=1e-5, abs=1e-4)


@pytest.mark.model
def test_layout_and_padding_change_nothing_for_a_real_model(smol_model: LoadedModel) -> None:
    texts = [output for _, _, output in EXAMPLES]
    items = [
        encode(smol_model.tokenizer, "plain", instruction, context, texts[: k + 1], 64)
        for k, (instruction, context, _) in enumerate(EXAMPLES[:3])
    ]
    together = output_losses(smol_model.model, items, 10_000)
    padded_rows = output_losses(smol_model.model, one_row_an_output(items), 10_000)
    alone = output_losses(smol_model.model, one_row_an_output(items), 1)
    assert together.nll == pytest.approx(alone.nll, rel=1e-5, abs=1e-3)
    assert padded_rows.nll == pytest.approx(alone.nll, rel=1e-5, abs=1e-3)


def one_row_an_output(items: list[Encoded]) -> list[Encoded]:
    return [Encoded(item.prompt, (output,)) for item in items for output in item.outputs]
