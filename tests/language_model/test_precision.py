"""Which format `auto` is: what was measured, once for all processes."""

import json
from pathlib import Path

import pytest
import torch

from im_resources.language_model import precision
from im_resources.language_model.loading import (
    ModelError,
    base_fingerprint,
    effective_precision,
    load_base,
    locate,
)
from im_resources.language_model.precision import Speeds
from im_resources.language_model.side_by_side import Stopped
from im_resources.study import ModelSource
from tests.language_model.fixtures import CPU


@pytest.fixture
def source(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSource:
    """The tiny model, on a machine that has measured nothing."""
    monkeypatch.setenv("IM_MODEL_CACHE", str(tmp_path / "cache"))
    precision._known.cache_clear()
    return ModelSource(path=str(tiny_folder))


def forget() -> None:
    """As another process, which knows what is kept and nothing else."""
    precision._known.cache_clear()


def test_both_are_measured_and_the_faster_is_taken(source: ModelSource) -> None:
    used = effective_precision(source, "auto", CPU)
    found = precision.kept(locate(source)[2], CPU)
    assert found is not None
    assert found.fp32 > 0
    assert found.bf16 > 0
    assert used == found.choice(CPU)
    assert load_base(source, "auto", CPU).precision == used
    assert base_fingerprint(source, "auto", CPU) == base_fingerprint(source, used, CPU)


def test_what_was_measured_once_stays(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second measurement could give another answer, and everything would be computed again."""
    first = effective_precision(source, "auto", CPU)
    other = Speeds(1.0, 9.0) if first == "fp32" else Speeds(9.0, 1.0)
    monkeypatch.setattr(precision, "measure", lambda *_: other)
    forget()
    assert effective_precision(source, "auto", CPU) == first
    [path] = (tmp_path / "cache").glob("precision-*.json")
    path.write_text("half a li")
    forget()
    assert effective_precision(source, "auto", CPU) == other.choice(CPU) != first
    assert json.loads(path.read_text()) == {"fp32": other.fp32, "bf16": other.bf16}


def test_a_cache_that_keeps_nothing_decides_nothing_by_chance(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("IM_MODEL_CACHE", str(tmp_path / "a file" / "cache"))
    monkeypatch.setattr(precision, "measure", lambda *_: Speeds(1.0, 9.0))
    assert effective_precision(source, "auto", CPU) == "fp32"


def test_a_run_that_ends_meanwhile_has_decided_nothing(
    source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: object) -> Speeds:
        raise Stopped("the run was told to end")

    monkeypatch.setattr(precision, "measure", ends)
    with pytest.raises(Stopped):
        effective_precision(source, "auto", CPU)
    monkeypatch.setattr(precision, "measure", lambda *_: Speeds(1.0, 9.0))
    assert effective_precision(source, "auto", CPU) == "bf16"


@pytest.mark.parametrize(
    ("speeds", "cpu", "cuda"),
    [
        (Speeds(100, 105), "fp32", "bf16"),  # as good as equal
        (Speeds(100, 150), "bf16", "bf16"),
        (Speeds(100, 95), "fp32", "bf16"),  # a little slower, in half of the memory
        (Speeds(100, 50), "fp32", "fp32"),  # emulated
    ],
)
def test_bf16_has_to_be_worth_it(speeds: Speeds, cpu: str, cuda: str) -> None:
    assert speeds.choice(torch.device("cpu")) == cpu
    assert speeds.choice(torch.device("cuda", 0)) == cuda


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        effective_precision(ModelSource(path=str(tmp_path / "none")), "auto", CPU)
