"""Finetunes killed in the middle go on to the same weights and losses, bit for bit."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from im_assets.experiments.finetuning import finetune_all
from im_assets.experiments.trainers import TrainingJob, trainer
from im_resources.adapter_store import AdapterStore
from im_resources.language_model.training import Training
from im_resources.published import DiskError
from im_resources.study import Study, load_study
from tests.experiments.small_study import gpu, mixtures, write_profile
from tests.killing import attacked
from tests.processes import Forked, wait_for

SETTINGS = {"epochs": 2, "batch_size": 2, "learning_rate": 2e-3, "schedule": "cosine"}
OFTEN = 1e-9  # minutes: after every step


class Killed(BaseException):
    """Stands for a kill in tests that need no process of their own: no finetune that failed."""


def study_of(
    folder: Path,
    model: Path,
    precision: str = "fp32",
    minutes: float | None = OFTEN,
    **finetuning: Any,
) -> Study:
    base = {"path": str(model)}
    models = {"base": base, "embedding": base, "precision": precision, "max_length": 64}
    settings = SETTINGS | {"checkpoint_minutes": minutes} | finetuning
    return load_study(write_profile(folder, base, models=models, finetuning=settings))


def finetuned(
    study: Study, store: AdapterStore, keys: tuple[str, ...] = ("seed-000",), on_step: Any = None
) -> dict[str, tuple[list[float], bytes]]:
    """Losses and bytes of the weights, by partition."""
    work = {key: mixtures()[key] for key in keys}
    found = {}
    for key, trained in finetune_all(work, study, gpu(len(keys)), store, on_step):
        [weights] = store.folder(trained.trial_id).glob("*.safetensors")
        found[key] = (trained.manifest["losses"], weights.read_bytes())
    return found


def dying_at(step: int) -> Callable[[str, int, int, int], None]:
    def on_step(_key: str, done: int, _steps: int, _tokens: int) -> None:
        if done == step:
            raise Killed

    return on_step


def checkpoints(store: AdapterStore) -> list[Path]:
    return sorted(store.root.glob(".checkpoint-*/*.safetensors"))


def losses_in(checkpoint: Path) -> list[float]:
    with safe_open(checkpoint, "pt") as file:
        losses: list[float] = json.loads(file.metadata()["state"])["losses"]
        return losses


@pytest.mark.parametrize(
    ("trainer_name", "precision"),
    [
        *(("lora", precision) for precision in ("fp32", "bf16", "nf4", "int8")),
        *(("full", precision) for precision in ("fp32", "bf16")),
    ],
)
def test_every_trainer_and_precision_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_folder: Path, trainer_name: str, precision: str
) -> None:
    study = study_of(tmp_path, tiny_folder, precision, trainer=trainer_name, weight_decay=0.1)
    store = AdapterStore(tmp_path / "killed")
    with pytest.raises(Killed):
        finetuned(study, store, on_step=dying_at(3))
    [left] = checkpoints(store)
    assert len(losses_in(left)) == 2  # of the step that was cut, nothing
    steps: list[int] = []
    again = finetuned(study, store, on_step=lambda _key, step, *_: steps.append(step))
    assert steps == [3, 4]
    off = study_of(tmp_path, tiny_folder, precision, None, trainer=trainer_name, weight_decay=0.1)
    assert again == finetuned(off, AdapterStore(tmp_path / "whole"))
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".")] == []


def test_side_by_side_each_goes_on_from_its_own(tmp_path: Path, tiny_folder: Path) -> None:
    study = study_of(tmp_path, tiny_folder)
    store = AdapterStore(tmp_path / "killed")
    keys = ("seed-000", "seed-001")
    with pytest.raises(Killed):
        finetuned(study, store, keys, dying_at(3))
    assert len(checkpoints(store)) == 2
    whole = finetuned(study, AdapterStore(tmp_path / "whole"), keys)
    assert finetuned(study, store, keys) == whole


def test_a_process_killed_in_a_training_goes_on_where_it_was(
    tmp_path: Path, tiny_folder: Path
) -> None:
    study = study_of(tmp_path, tiny_folder)
    store = AdapterStore(tmp_path / "killed")
    profile = str(tmp_path / "profile.yaml")
    module = "tests.experiments.small_study"
    child = Forked(module, profile, str(store.root), log=tmp_path / "log")
    try:
        wait_for(lambda: any(checkpoints(store)), child)
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    [left] = checkpoints(store)
    done = len(losses_in(left))
    steps: list[int] = []
    keys = ("seed-000",)
    again = finetuned(study, store, keys, lambda _key, step, *_: steps.append(step))
    assert steps == list(range(done + 1, 5))
    assert again == finetuned(study, AdapterStore(tmp_path / "whole"), keys)


def test_a_finetune_that_is_quick_leaves_no_checkpoint(tmp_path: Path, tiny_folder: Path) -> None:
    for minutes in (10, None):
        store = AdapterStore(tmp_path / str(minutes))
        with pytest.raises(Killed):
            finetuned(study_of(tmp_path, tiny_folder, minutes=minutes), store, on_step=dying_at(3))
        assert not checkpoints(store)


@pytest.mark.parametrize("damage", ["cut", "zeroed", "text", "empty", "json"])
def test_a_damaged_checkpoint_is_told_and_never_gone_on_from(
    tmp_path: Path, tiny_folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    study = study_of(tmp_path, tiny_folder)
    store = AdapterStore(tmp_path / "killed")
    with pytest.raises(Killed):
        finetuned(study, store, on_step=dying_at(3))
    [left] = checkpoints(store)
    content = left.read_bytes()
    middle = len(content) // 2
    left.write_bytes(
        {
            "cut": content[:middle],
            "zeroed": content[:middle] + bytes(64) + content[middle + 64 :],
            "text": b"not safetensors at all",
            "empty": b"",
            "json": content.replace(b'\\"tokens\\": ', b'\\"tokens\\": 9', 1),
        }[damage]
    )
    assert left.read_bytes() != content
    steps: list[int] = []
    again = finetuned(study, store, on_step=lambda _key, step, *_: steps.append(step))
    assert steps == [1, 2, 3, 4]
    assert f"{left} is no checkpoint to go on from" in caplog.text
    assert again == finetuned(study, AdapterStore(tmp_path / "whole"))


def test_another_trainings_checkpoint_is_never_taken(
    tmp_path: Path, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = study_of(tmp_path, tiny_folder)
    store = AdapterStore(tmp_path / "killed")
    with pytest.raises(Killed):
        finetuned(study, store, ("seed-001",), dying_at(3))
    [other] = checkpoints(store)
    # Other settings make another trial, which does not look there …
    longer = study_of(tmp_path, tiny_folder, learning_rate=1e-3)
    with pytest.raises(Killed):
        finetuned(longer, store, ("seed-001",), dying_at(1))
    with pytest.raises(Killed):
        finetuned(study, store, on_step=dying_at(3))
    # … and a file put in its place is recognized.
    [mine] = [p for p in checkpoints(store) if p != other]
    mine.write_bytes(other.read_bytes())
    assert finetuned(study, store) == finetuned(study, AdapterStore(tmp_path / "whole"))
    assert "it is of another training" in caplog.text
    assert other.is_file()


@trainer("in_two_parts", version=1)
def in_two_parts(job: TrainingJob) -> Training:
    """A plugin's, which knows nothing of checkpoints and trains one layer after the other."""
    from im_resources.language_model.finetuned import save_whole, trainable_copy
    from im_resources.language_model.training import train

    model, losses = trainable_copy(job.base), []
    for layer in ("layers.0.", "layers.1."):
        weights = [p for n, p in model.named_parameters() if layer in n and "norm" in n]
        part = train(model, weights, job.encoded(), job.settings, job.seed, job.on_step)
        losses += part.losses
    save_whole(model, job.base, job.folder)
    return Training(losses, part.tokens, part.seconds)


def test_a_plugins_trainer_goes_on_too_whatever_it_trains_in_turn(
    tmp_path: Path, tiny_folder: Path
) -> None:
    study = study_of(tmp_path, tiny_folder, trainer="in_two_parts", learning_rate=0.02)
    store, seen = AdapterStore(tmp_path / "killed"), []

    def in_the_second_part(_key: str, step: int, _steps: int, _tokens: int) -> None:
        seen.append(step)
        if len(seen) == 7:
            raise Killed

    with pytest.raises(Killed):
        finetuned(study, store, on_step=in_the_second_part)
    steps: list[int] = []
    again = finetuned(study, store, on_step=lambda _key, step, *_: steps.append(step))
    assert steps == [4, 3, 4]  # the last step of the first part, two of the second
    off = study_of(tmp_path, tiny_folder, minutes=None, trainer="in_two_parts", learning_rate=0.02)
    assert again == finetuned(off, AdapterStore(tmp_path / "whole"))


def test_how_often_is_saved_changes_no_trial(tmp_path: Path, tiny_folder: Path) -> None:
    one = mixtures()["seed-000"]
    keys = {
        one.trial_id(study_of(tmp_path, tiny_folder, minutes=minutes), "base")
        for minutes in (None, OFTEN, 10, 120)
    }
    assert len(keys) == 1


def test_a_disk_that_cannot_take_a_checkpoint_says_so(tmp_path: Path, tiny_folder: Path) -> None:
    import resource

    study = study_of(tmp_path, tiny_folder)
    store = AdapterStore(tmp_path / "adapters")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(DiskError, match=r"cannot write the checkpoint .*File too large; raise"):
            finetuned(study, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not checkpoints(store)
    assert not list(store.root.rglob("*.writing"))
    assert finetuned(study, store)  # and with room, it works


def test_an_interrupt_ends_the_work_under_way(tmp_path: Path, tiny_folder: Path) -> None:
    study = study_of(tmp_path, tiny_folder, epochs=1000)
    work = {key: mixtures()[key] for key in ("seed-000", "seed-001")}
    steps: list[int] = []

    def interrupted(key: str, step: int, _steps: int, _tokens: int) -> None:
        steps.append(step)
        if key == "seed-000" and step == 3:
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C: the main thread is told

    store = AdapterStore(tmp_path / "adapters")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(finetune_all(work, study, gpu(2), store, interrupted))
    finally:
        signal.signal(signal.SIGINT, before)
    assert max(steps) < 2000  # the neighbour ended as well, long before its last step


@pytest.mark.slow
def test_no_kill_at_a_write_changes_a_trial(tmp_path: Path, tiny_folder: Path) -> None:
    """Every twentieth write of two finetunes; with a stride of 1 all of them (an hour or so)."""
    study_of(tmp_path, tiny_folder)
    profile = str(tmp_path / "profile.yaml")
    found = attacked("tests.experiments.small_study:finetune_two", tmp_path / "k", 20, profile)
    assert found["points"] >= 3
    assert found["differ"] == []
