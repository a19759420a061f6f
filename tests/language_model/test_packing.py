"""Rows laid end to end give what each row gives alone."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from im_resources.language_model.attention import KEPT, row_attention
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.lora import add_adapter, engine_for
from im_resources.language_model.packing import (
    UnpackableError,
    attend,
    pack,
    packed_states,
    segment_attention,
)
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.together import Engine
from im_resources.study import FinetuningSettings

SETTINGS = FinetuningSettings(epochs=1, batch_size=2, checkpoint_minutes=None)
GROUPED: dict[str, Any] = {"intermediate_size": 48, "num_key_value_heads": 2}
HEADS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 97,
}


def encoded(prompt: int, response: int, seed: int) -> Encoded:
    """A row of random tokens."""
    ids = torch.randint(3, 90, (prompt + response,), generator=torch.Generator().manual_seed(seed))
    return Encoded(tuple(ids[:prompt].tolist()), (tuple(ids[prompt:].tolist()),))


@pytest.fixture(scope="module")
def engine(tiny_model: LoadedModel) -> Engine:
    return Engine(add_adapter(tiny_model, SETTINGS, 0), SETTINGS, 64)


ROWS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 17), st.integers(0, 99)), min_size=1, max_size=6
)


@given(rows=ROWS)
@hypothesis_settings(max_examples=25)
def test_a_row_is_what_it_is_whatever_lies_beside_it(
    engine: Engine, tiny_plain: Any, rows: list[tuple[int, int, int]]
) -> None:
    chosen = [encoded(*row) for row in rows]
    with torch.no_grad():
        packed = pack([chosen], torch.device("cpu"))
        states = packed_states(engine._model, packed)
        start = 0
        for row in chosen:
            ids = torch.tensor([[*row.prompt, *row.outputs[0]]])
            alone = tiny_plain.get_decoder()(input_ids=ids).last_hidden_state[0]
            torch.testing.assert_close(
                states[start : start + row.length], alone, rtol=1e-5, atol=2e-5
            )
            start += row.length


def test_positions_targets_and_parts_are_those_of_the_rows() -> None:
    whole = Encoded((5, 6), ((7, 8, 9, 4),), (True, False, False, True))
    packed = pack([[whole, encoded(1, 2, 0)], [encoded(3, 1, 1)]], torch.device("cpu"))
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2, 3]]
    assert packed.rows.bounds.tolist() == [0, 6, 9, 13]
    assert packed.predictor.tolist() == [1, 4, 6, 7, 11]
    ids = packed.input_ids[0]
    assert packed.target.tolist() == ids[packed.predictor + 1].tolist()
    assert packed.parts == ((slice(0, 9), slice(0, 4)), (slice(9, 13), slice(4, 5)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention_and_its_gradients_are_those_of_each_row(
    dtype: torch.dtype, key_heads: int
) -> None:
    lengths, generator = [5, 1, 12], torch.Generator().manual_seed(0)

    def drawn(heads: int) -> torch.Tensor:
        return torch.randn(1, heads, sum(lengths), 8, generator=generator)

    exact = [drawn(heads).requires_grad_() for heads in (4, key_heads, key_heads)]
    rounded = [t.detach().to(dtype).requires_grad_() for t in exact]
    mine = row_attention(rounded[0], rounded[1], rounded[2], lengths, 0.3)
    rows = torch.arange(3).repeat_interleave(torch.tensor(lengths))
    mask = (rows[:, None] == rows[None]).tril()
    q, k, v = (t.repeat_interleave(4 // t.shape[1], 1) for t in exact)
    theirs = F.scaled_dot_product_attention(q, k, v, mask, scale=0.3).transpose(1, 2)
    direction = torch.randn(theirs.shape, generator=generator)
    mine.backward(direction.to(dtype))
    theirs.backward(direction)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    for got, want in [
        (mine, theirs),
        *((r.grad, e.grad) for r, e in zip(rounded, exact, strict=True)),
    ]:
        assert got is not None
        assert want is not None
        assert (got.float() - want).norm() < tolerance * want.norm()
    assert max(lengths) <= KEPT


PACKABLE = {
    "llama": LlamaConfig(**HEADS, **GROUPED),
    "qwen2": Qwen2Config(**HEADS, **GROUPED),
    "gpt-neox": GPTNeoXConfig(**HEADS, intermediate_size=48),
    "mistral": MistralConfig(**HEADS, **GROUPED, sliding_window=64),
}
TARGETS = {"gpt-neox": ("query_key_value",), "falcon": ("query_key_value",)}
UNPACKABLE = {
    "falcon": FalconConfig(**HEADS, alibi=True),
    "mistral, short window": MistralConfig(**HEADS, **GROUPED, sliding_window=8),
}


def adapter_of(name: str, config: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    base = LoadedModel(model, None, name, "fp32", torch.device("cpu"))
    targets = TARGETS.get(name, ("q_proj", "v_proj"))
    return add_adapter(base, SETTINGS.model_copy(update={"target_modules": targets}), 0)


@pytest.mark.parametrize("name", PACKABLE)
def test_architectures_whose_attention_is_causal_and_nothing_more_are_packed(name: str) -> None:
    assert engine_for(adapter_of(name, PACKABLE[name]), SETTINGS, 64) is not None


@pytest.mark.parametrize("name", UNPACKABLE)
def test_others_are_told_and_trained_on_padded_batches(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = adapter_of(name, UNPACKABLE[name])
    with pytest.raises(UnpackableError):
        Engine(adapter, SETTINGS, 64)
    assert engine_for(adapter, SETTINGS, 64) is None


@pytest.mark.gpu
@pytest.mark.parametrize("key_heads", [4, 2])
def test_flash_attention_of_rows_on_a_gpu(key_heads: int) -> None:
    from im_resources.language_model.packing import Rows

    lengths = (65, 1, 200)
    q, k, v = (
        torch.randn(1, heads, sum(lengths), 64, device="cuda", dtype=torch.bfloat16)
        for heads in (4, key_heads, key_heads)
    )
    rows = Rows(lengths, torch.device("cuda"))
    got, _ = attend(torch.nn.Identity(), q, k, v, None, scaling=0.2, rows=rows)
    want = row_attention(q.float(), k.float(), v.float(), lengths, 0.2)
    assert (got.float() - want).norm() < 0.02 * want.norm()


SHARED = [Encoded((*range(100, 140), k), ((5, 6 + k), (7, 8, 9))) for k in range(3)]


@pytest.mark.gpu
@pytest.mark.parametrize("key_heads", [4, 2])
def test_flash_attention_of_segments_on_a_gpu(key_heads: int) -> None:
    rows = pack([SHARED], torch.device("cuda"), share=True).rows
    assert rows.before
    q, k, v = (
        torch.randn(1, heads, sum(rows.lengths), 64, device="cuda", dtype=torch.bfloat16)
        for heads in (4, key_heads, key_heads)
    )
    got, _ = attend(torch.nn.Identity(), q, k, v, None, scaling=0.2, rows=rows)
    want = segment_attention(q.float(), k.float(), v.float(), rows, 0.2)
    assert (got.float() - want).norm() < 0.02 * want.norm()


@pytest.mark.parametrize("key_heads", [4, 2])
def test_each_segment_attends_to_itself_and_those_before_it(key_heads: int) -> None:
    rows = pack([SHARED, SHARED[:1]], torch.device("cpu"), share=True).rows
    tokens, starts = sum(rows.lengths), rows.starts
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, tokens, 8, generator=generator) for h in (4, key_heads, key_heads))
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    for number, before in enumerate(rows.before):
        for other in (*before, number):
            mask[starts[number] : starts[number + 1], starts[other] : starts[other + 1]] = True
    # Segments lie behind those that they continue.
    keys, values = (t.repeat_interleave(4 // key_heads, 1) for t in (k, v))
    want = F.scaled_dot_product_attention(q, keys, values, mask.tril(), scale=0.3)
    got = segment_attention(q, k, v, rows, 0.3)
    torch.testing.assert_close(got, want.transpose(1, 2))
    # What flash attention on a GPU is told: the same keys, segment by segment.
    assert rows.keys.tolist() == [place for row in _spans(mask, starts) for place in row]
    assert rows.key_bounds.tolist()[-1] == len(rows.keys)


def _spans(mask: torch.Tensor, starts: tuple[int, ...]) -> list[list[int]]:
    """The keys of each segment's last token."""
    return [mask[end - 1].nonzero()[:, 0].tolist() for end in starts[1:]]


def test_several_outputs_are_packed_where_they_are_shared_only() -> None:
    with pytest.raises(ValueError, match="share=True"):
        pack([SHARED], torch.device("cpu"))
