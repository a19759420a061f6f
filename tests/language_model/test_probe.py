"""How many adapters train at once is measured once a machine, and kept."""

import json
from pathlib import Path

import pytest

from im_resources.language_model import probe
from im_resources.language_model.engines import Choice
from im_resources.language_model.loading import LoadedModel
from im_resources.language_model.probe import FILE, side_by_side
from im_resources.language_model.together import Engine
from im_resources.study import FinetuningSettings
from tests.language_model.models import encoded_examples

SETTINGS = FinetuningSettings(batch_size=3, checkpoint_minutes=None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IM_MODEL_CACHE", str(tmp_path))
    return tmp_path / FILE


def rates(monkeypatch: pytest.MonkeyPatch, by_number: dict[int, float | Exception]) -> list[int]:
    """Let so many adapters train at this rate; the numbers that are tried, as they are."""
    monkeypatch.setitem(probe.MOST, "cpu", 8)
    tried: list[int] = []

    def rate(engine: Engine, adapters: list[object], *_: object) -> float:
        tried.append(len(adapters))
        engine.kept = len(adapters)
        found = by_number[len(adapters)]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(Engine, "rate", rate)
    return tried


def test_it_is_measured_once_and_found_again(tiny_model: LoadedModel, cache: Path) -> None:
    rows = encoded_examples(tiny_model.tokenizer)
    first = side_by_side(tiny_model, SETTINGS, 64, rows, 1)
    assert 1 <= first.adapters <= probe.MOST["cpu"]
    assert first.tokens_per_second > 0
    kept = cache.read_text(encoding="utf-8")
    assert side_by_side(tiny_model, SETTINGS, 64, rows, 1) == first
    assert cache.read_text(encoding="utf-8") == kept
    other = SETTINGS.model_copy(update={"batch_size": 2})
    side_by_side(tiny_model, other, 64, rows, 1)
    assert len(json.loads(cache.read_text(encoding="utf-8"))) == 2
    cache.write_text("no JSON", encoding="utf-8")
    side_by_side(tiny_model, SETTINGS, 64, rows, 1)
    assert len(json.loads(cache.read_text(encoding="utf-8"))) == 1


@pytest.mark.parametrize(
    ("by_number", "chosen", "tried"),
    [
        ({1: 100.0, 2: 101.0}, 1, [1, 2]),
        ({1: 100.0, 2: 150.0, 4: 151.0}, 2, [1, 2, 4]),
        ({1: 100.0, 2: 150.0, 4: MemoryError()}, 2, [1, 2, 4]),
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}, 8, [1, 2, 4, 8]),
    ],
)
def test_more_are_taken_while_they_are_faster_and_memory_suffices(
    tiny_model: LoadedModel,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_number: dict[int, float | Exception],
    chosen: int,
    tried: list[int],
) -> None:
    seen = rates(monkeypatch, by_number)
    rows = encoded_examples(tiny_model.tokenizer)
    assert side_by_side(tiny_model, SETTINGS, 64, rows, 1).adapters == chosen
    assert seen == tried
    assert cache.is_file()


def test_memory_that_would_not_suffice_is_not_tried(
    tiny_model: LoadedModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that promises more memory than it has kills who takes it."""
    assert not cache.exists()
    seen = rates(monkeypatch, {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0})
    monkeypatch.setattr(probe, "_free", lambda _device: 5)
    rows = encoded_examples(tiny_model.tokenizer)
    assert side_by_side(tiny_model, SETTINGS, 64, rows, 1).adapters == 2  # 4 take about 6
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("by_threads", "engines", "threads"),
    [
        ({4: 100.0, 2: 51.0, 1: 26.0}, 4, 1),  # no slower: nothing waits for another core
        ({4: 100.0, 2: 49.0, 1: 24.0}, 4, 1),  # within what a measurement differs by
        ({4: 100.0, 2: 55.0, 1: 20.0}, 2, 2),  # as where memory is too slow for all cores
        ({4: 100.0, 2: 30.0, 1: 40.0}, 1, 4),
    ],
)
def test_cores_are_not_shared_where_each_alone_is_as_fast(
    tiny_model: LoadedModel,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_threads: dict[int, float],
    engines: int,
    threads: int,
) -> None:
    monkeypatch.setattr(Engine, "rate", lambda engine, *_: by_threads[engine.threads])
    rows = encoded_examples(tiny_model.tokenizer)
    choice = side_by_side(tiny_model, SETTINGS, 64, rows, 4)
    assert (choice.engines, choice.adapters, choice.threads) == (engines, 1, threads)
    assert choice.tokens_per_second == engines * by_threads[threads]
    assert cache.is_file()


def test_a_machine_that_is_asked_for_less_gives_each_training_more() -> None:
    choice = Choice(engines=4, adapters=2, threads=1)
    assert choice.at_once == 8
    assert choice.for_fewer(2, cores=4) == Choice(2, 2, 2)
    assert choice.for_fewer(9, cores=4) == choice
    assert Choice.asked(1, cores=4) == Choice(1, 1, 4)
    assert Choice.asked(6, cores=4) == Choice(4, 2, 1)
    assert Choice.asked(3, cores=0) == Choice(1, 3, 0)  # of a GPU
