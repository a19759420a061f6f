"""Adapters that train together are what each of them is alone, and what a plain loop gives."""

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel

from im_resources.language_model import together as module
from im_resources.language_model.batching import shuffled
from im_resources.language_model.checkpoints import checkpointed
from im_resources.language_model.engines import Choice, Engines
from im_resources.language_model.linear_cross_entropy import CHUNK, linear_cross_entropy
from im_resources.language_model.loading import LoadedModel, load_base
from im_resources.language_model.lora import add_adapter, engines_of, train_adapter
from im_resources.language_model.losses import output_losses
from im_resources.language_model.packing import packed_states
from im_resources.language_model.prompts import Encoded
from im_resources.language_model.together import Engine
from im_resources.language_model.training import Training, train
from im_resources.study import FinetuningSettings, ModelSource
from tests.language_model.models import encoded_examples, plain_nll
from tests.language_model.test_packing import encoded

SETTINGS = FinetuningSettings(
    epochs=2,
    batch_size=3,
    learning_rate=2e-3,
    warmup_fraction=0.2,
    schedule="cosine",
    weight_decay=0.1,
    max_grad_norm=0.5,
    checkpoint_minutes=None,
)
Result = tuple[Training, dict[str, torch.Tensor]]
CPU = torch.device("cpu")


def rows_of(seed: int) -> list[Encoded]:
    """A set for each seed: from 4 to 12 rows of from 3 to 40 tokens."""
    return [encoded(1 + (7 * k + seed) % 13, 2 + (5 * k + 3 * seed) % 26, 100 * seed + k)
            for k in range(4 + 3 * seed % 9)]  # fmt: skip


def weights_of(adapter: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in adapter.named_parameters() if p.requires_grad}


def padded(base: LoadedModel, seed: int, settings: FinetuningSettings) -> Result:
    """Alone, by the loop over padded batches."""
    adapter = add_adapter(base, settings, seed)
    weights = [p for p in adapter.parameters() if p.requires_grad]
    training = train(adapter.get_base_model(), weights, rows_of(seed), settings, seed)
    return training, weights_of(adapter)


def together(
    base: LoadedModel,
    seeds: Sequence[int],
    at_once: int,
    settings: FinetuningSettings = SETTINGS,
    engine: Engine | Engines | None = None,
    on_step: Any = None,
) -> dict[int, Result]:
    """In shared steps, ``at_once`` of them at a time."""
    engine = engine or Engine(add_adapter(base, settings, 0), settings, 64)

    def one(seed: int) -> Result:
        adapter = add_adapter(base, settings, seed)
        report = None if on_step is None else lambda *step: on_step(seed, adapter, *step)
        training = train_adapter(adapter, rows_of(seed), settings, seed, report, engine)
        return training, weights_of(adapter)

    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(seeds, pool.map(one, seeds), strict=True))


def assert_equal(one: Result, other: Result, tolerance: float = 1e-5) -> None:
    assert one[0].losses == pytest.approx(other[0].losses, rel=tolerance)
    assert one[1].keys() == other[1].keys()
    for name, weight in one[1].items():
        # AdamW divides each gradient by its own size: of tiny ones, rounding becomes a step.
        assert (weight - other[1][name]).norm() <= 20 * tolerance * other[1][name].norm(), name


KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "every layer": {"target_modules": ("q_proj", "o_proj", "gate_proj", "down_proj")},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "checkpointing": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_trainings_together_are_each_alone_on_padded_batches(
    tiny_model: LoadedModel, kind: str, at_once: int
) -> None:
    settings = SETTINGS.model_copy(update=KINDS[kind])
    seeds = range(5 if kind == "lora" else at_once)
    found = together(tiny_model, seeds, at_once, settings)
    assert len({len(training.losses) for training, _ in found.values()}) > 1 or at_once == 1
    for seed in seeds:
        assert_equal(found[seed], padded(tiny_model, seed, settings))


def test_an_engine_a_training_is_each_alone_to_the_last_bit(tiny_model: LoadedModel) -> None:
    """Nothing but the neighbours of a step changes how its sums are rounded."""
    seeds, threads = range(4), torch.get_num_threads()
    alone = {
        seed: together(
            tiny_model, [seed], 1, engine=engines_of(tiny_model, SETTINGS, 64, Choice(1, 1, 1))
        )[seed]
        for seed in seeds
    }
    engines = engines_of(tiny_model, SETTINGS, 64, Choice(2, 1, 1))
    beside = together(tiny_model, seeds, 2, engine=engines)
    for seed in seeds:
        assert_equal(beside[seed], alone[seed], 0)
    assert torch.get_num_threads() == threads


def test_a_batch_is_the_mean_of_its_rows_one_at_a_time(tiny_model: LoadedModel) -> None:
    rows, settings = rows_of(1), SETTINGS.model_copy(update={"batch_size": 4})
    adapter = add_adapter(tiny_model, settings, 1)
    fresh = add_adapter(tiny_model, settings, 1).get_base_model()
    first = train_adapter(adapter, rows, settings, 1).losses[0]
    plan = shuffled(rows, 4, 2, torch.Generator().manual_seed(1))
    nll = [plain_nll(fresh, rows[i].prompt, rows[i].outputs[0]) for i in plan[0]]
    assert first == pytest.approx(
        sum(nll) / sum(len(rows[i].outputs[0]) for i in plan[0]), rel=1e-5
    )


@pytest.mark.parametrize("precision", ["bf16", "int8", "nf4"])
def test_in_coarser_precisions_the_difference_is_rounding(
    tiny_folder: Path, precision: str
) -> None:
    """bfloat16 has 8 bits: losses within 2 %; a product of other shape rounds elsewhere."""
    base = load_base(ModelSource(path=str(tiny_folder)), precision, CPU)
    found = together(base, range(3), 3)
    for seed in range(3):
        alone = padded(base, seed, SETTINGS)
        assert found[seed][0].losses == pytest.approx(alone[0].losses, rel=0.02)


def test_one_that_fails_leaves_and_the_others_do_not_notice(tiny_model: LoadedModel) -> None:
    def spoil(seed: int, adapter: Any, step: int, *_: int) -> None:
        if seed == 1 and step == 1:
            with torch.no_grad():
                # The last: torch's attention on a CPU loses a NaN among the queries of a short row.
                [p for p in adapter.parameters() if p.requires_grad][-1].fill_(float("nan"))

    engine = Engine(add_adapter(tiny_model, SETTINGS, 0), SETTINGS, 64)
    results: dict[int, Result | Exception] = {}

    def one(seed: int) -> None:
        try:
            results.update(together(tiny_model, [seed], 1, SETTINGS, engine, spoil))
        except FloatingPointError as error:
            results[seed] = error

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(results[1], FloatingPointError)
    assert "nan at step 2" in str(results[1])
    for seed in (0, 2):
        result = results[seed]
        assert not isinstance(result, Exception)
        assert_equal(result, padded(tiny_model, seed, SETTINGS))


def test_memory_that_does_not_suffice_halves_the_pass_and_loses_nothing(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def refusing(model: Any, packed: Any) -> torch.Tensor:
        passes.append(len(packed.parts))
        if len(packed.parts) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return packed_states(model, packed)

    engine = Engine(add_adapter(tiny_model, SETTINGS, 0), SETTINGS, 64)
    monkeypatch.setattr(module, "packed_states", refusing)
    found = together(tiny_model, range(5), 5, SETTINGS, engine)
    monkeypatch.undo()
    assert max(passes) > 2
    assert engine.limit in (1, 2)
    for seed in range(5):
        assert_equal(found[seed], padded(tiny_model, seed, SETTINGS))


def test_an_error_of_one_is_no_error_of_its_neighbours(tiny_model: LoadedModel) -> None:
    engine = Engine(add_adapter(tiny_model, SETTINGS, 0), SETTINGS, 64)
    broken = [Encoded((1, 2), ((10**6, 3),))] * 4
    errors: list[Exception] = []

    def one() -> None:
        try:
            train_adapter(add_adapter(tiny_model, SETTINGS, 9), broken, SETTINGS, 9, None, engine)
        except IndexError as error:
            errors.append(error)

    beside = threading.Thread(target=one)
    beside.start()
    found = together(tiny_model, [0, 1], 2, SETTINGS, engine)
    beside.join()
    assert len(errors) == 1
    for seed in (0, 1):
        assert_equal(found[seed], padded(tiny_model, seed, SETTINGS))


class Cut(Exception):
    """Ends a training, as a kill would."""


def test_interrupted_and_resumed_is_uninterrupted(tiny_model: LoadedModel, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 3})

    def once(last: int | None) -> Result:
        adapter = add_adapter(tiny_model, settings, 2)

        def on_step(step: int, *_: int) -> None:
            if step == last:
                raise Cut

        with checkpointed(tmp_path, "trial", 1e-9):
            training = train_adapter(adapter, rows_of(2), settings, 2, on_step)
        return training, weights_of(adapter)

    with pytest.raises(Cut):
        once(4)
    assert [path.name for path in tmp_path.iterdir()] == ["0.safetensors"]
    whole = together(tiny_model, [2], 1, settings)[2]
    assert_equal(once(None), whole)


def test_what_is_saved_is_a_plain_peft_adapter(
    tiny_model: LoadedModel, tiny_plain: Any, tmp_path: Path
) -> None:
    adapter = add_adapter(tiny_model, SETTINGS, 3)
    train_adapter(adapter, rows_of(3), SETTINGS, 3)
    adapter.save_pretrained(tmp_path)
    [file] = tmp_path.glob("*.safetensors")
    size = sum(weight.nbytes for weight in weights_of(adapter).values())
    assert file.stat().st_size < size + 10_000  # each weight once, and not the memory it was in
    plain = PeftModel.from_pretrained(copy.deepcopy(tiny_plain), str(tmp_path)).eval()
    rows = encoded_examples(tiny_model.tokenizer)
    mine = output_losses(adapter.get_base_model(), rows, 128).nll
    theirs = [plain_nll(plain, row.prompt, row.outputs[0]) for row in rows]
    assert mine == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 97 * 3, 10**9])
def test_cross_entropy_and_its_gradient_are_torchs(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setitem(CHUNK, "cpu", chunk)
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(8, 97).requires_grad_(False)
    states = torch.randn(11, 8, generator=generator).requires_grad_()
    target = torch.randint(97, (11,), generator=generator)
    share = torch.rand(11, generator=generator)
    total, nll = linear_cross_entropy(head, states, target, share)
    (3 * total).backward()
    again = states.detach().clone().requires_grad_()
    each = F.cross_entropy(head(again), target, reduction="none")
    (3 * (each * share).sum()).backward()
    torch.testing.assert_close(nll, each.detach())
    torch.testing.assert_close(total, (each * share).sum())
    torch.testing.assert_close(states.grad, again.grad)


def test_nothing_is_computed_below_the_lowest_adapted_layer(tiny_model: LoadedModel) -> None:
    settings = SETTINGS.model_copy(update={"target_modules": ("layers.1.mlp.down_proj",)})
    engine = Engine(add_adapter(tiny_model, settings, 0), settings, 64)
    needs: list[bool] = []
    layer = engine._model.get_decoder().layers[1].mlp.gate_proj
    layer.register_forward_hook(lambda _m, _a, out: needs.append(out.requires_grad))
    together(tiny_model, [0], 1, settings, engine)
    assert needs
    assert not any(needs)
