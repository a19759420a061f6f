"""Trainers are found by name, checked with the profile, and part of a trial's key."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from im_assets.definitions import definitions
from im_assets.experiments import trainers
from im_assets.experiments.evaluation import evaluate_adapters, evaluate_base
from im_assets.experiments.finetuning import Finetune, FinetuneError, finetune_all
from im_assets.experiments.trainers import (
    TRAINERS,
    Trainer,
    TrainerError,
    TrainingJob,
    check_trainer,
    trainer,
    trainer_key,
    trainer_of,
)
from im_resources.adapter_store import AdapterStore
from im_resources.language_model.training import Training
from im_resources.study import FinetuningSettings, fingerprint, load_study
from tests.experiments.small_study import gpu, mixtures, write_profile

LORA = ("lora_rank", "lora_alpha", "target_modules", "use_rslora", "use_dora")


# A plugin's module would hold what follows, and nothing else.
@trainer("only_norms", version=3, ignores=LORA)
def only_norms(job: TrainingJob, layer: int | None = None) -> Training:
    """Train the normalization weights, of one layer or of all."""
    from im_resources.language_model.finetuned import save_whole, trainable_copy
    from im_resources.language_model.training import train

    model = trainable_copy(job.base)
    place = "" if layer is None else f"layers.{layer}."
    norms = [p for n, p in model.named_parameters() if "norm" in n and place in n]
    training = train(model, norms, job.encoded(), job.settings, job.seed, job.on_step)
    save_whole(model, job.base, job.folder)
    return training


@trainer("forgetful", version=1)
def forgetful(job: TrainingJob) -> Training:
    """Writes nothing."""
    return Training([1.0], 1, 1.0)


def changed(**settings: Any) -> dict[str, Any]:
    return trainer_key(FinetuningSettings(**settings))


def test_what_was_trained_before_there_were_trainers_keeps_its_key() -> None:
    study = load_study("demo")
    finetune = Finetune("seed-003", 3, pd.DataFrame({"example_id": ["a", "b"]}))
    # Both as computed before the settings trainer, options, use_rslora and use_dora existed.
    assert fingerprint(trainer_key(study.finetuning)) == "e330574c9a6f2e6e"
    assert finetune.trial_id(study, "base") == "bb3738e27aaf108b"
    assert fingerprint(study.finetuning) == "e330574c9a6f2e6e"


def test_a_trainer_and_what_it_reads_change_the_key_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lora = changed()
    for setting in ({"use_rslora": True}, {"use_dora": True}, {"lora_rank": 4}):
        assert changed(**setting) != lora
    full = changed(trainer="full")
    assert (full["trainer"], full["trainer_version"]) == ("full", 1)
    assert changed(trainer="full", lora_rank=4, target_modules=("o_proj",), use_dora=True) == full
    assert changed(trainer="full", epochs=4) != full
    assert not set(full) & set(LORA)
    plugin = changed(trainer="only_norms", options={"layer": 1})
    assert plugin["trainer_version"] == 3
    assert plugin != changed(trainer="only_norms", options={"layer": 0})

    found = TRAINERS.all()
    newer = {**found, "lora": Trainer("lora", found["lora"].train, 2)}
    monkeypatch.setattr(trainers.TRAINERS, "_entries", newer)
    assert changed() == {**lora, "trainer_version": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer": "ful"}, r"finetuning.trainer: unknown trainer 'ful'; did you mean 'full'\?"),
        ({"options": {"rank": 8}}, r"finetuning.options.rank: lora has no such option"),
        (
            {"trainer": "only_norms", "options": {"layer": "last"}},
            r"finetuning.options.layer: .*integer.*found 'last'",
        ),
    ],
)
def test_a_wrong_trainer_is_an_error_when_the_definitions_are_built(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainerError, match=message):
        trainer_of(FinetuningSettings(**settings))
    profile = write_profile(tmp_path, {"path": "unused"}, finetuning=settings)
    with pytest.raises(TrainerError, match=message):
        definitions(load_study(profile), profile)


def test_a_quantized_base_that_a_trainer_cannot_train_is_an_error_too(tmp_path: Path) -> None:
    base = {"path": "unused"}
    for precision, name in (("bf16", "full"), ("nf4", "lora")):
        models = {"base": base, "embedding": base, "precision": precision}
        profile = write_profile(tmp_path, base, models=models, finetuning={"trainer": name})
        check_trainer(load_study(profile))
    profile = write_profile(
        tmp_path, base, models={**models, "precision": "nf4"}, finetuning={"trainer": "full"}
    )
    with pytest.raises(TrainerError, match=r"full cannot train a base in models.precision: nf4"):
        check_trainer(load_study(profile))


def test_one_name_is_one_trainer_and_what_it_ignores_is_a_setting() -> None:
    with pytest.raises(TrainerError, match=r"two entries are called 'lora' \(trainer\)"):
        trainer("lora", version=9)(only_norms)
    with pytest.raises(TrainerError, match=r"'mine' ignores lora_ranks: no setting"):
        trainer("mine", version=1, ignores=("lora_ranks",))


def test_a_plugins_trainer_trains_evaluates_and_is_kept_like_any_other(
    tmp_path: Path, tiny_folder: Path
) -> None:
    settings = {
        "trainer": "only_norms",
        "options": {"layer": 1},
        "epochs": 2,
        "batch_size": 2,
        "learning_rate": 0.02,
    }
    study = load_study(write_profile(tmp_path, {"path": str(tiny_folder)}, finetuning=settings))
    store, rows = AdapterStore(tmp_path / "adapters"), as_evaluation("seed-000")
    steps: list[tuple[str, int, int, int]] = []
    work = {key: mixtures()[key] for key in ("seed-000", "seed-001")}
    trained = dict(finetune_all(work, study, gpu(2), store, lambda *step: steps.append(step)))
    assert len(steps) == 8
    folder = store.folder(trained["seed-000"].trial_id)
    assert trained["seed-000"].manifest["finetuning"]["options"] == {"layer": 1}
    before, after = (load_file(f / "model.safetensors") for f in (tiny_folder, folder))
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved == {f"model.layers.1.{n}_layernorm.weight" for n in ("input", "post_attention")}
    [(_, losses)] = evaluate_adapters({"seed-000": folder}, rows, study, gpu())
    assert losses["nll"].sum() < evaluate_base(rows, study, gpu())["nll"].sum()
    assert not any(trial.now for _, trial in finetune_all(work, study, gpu(), store))


def as_evaluation(key: str) -> pd.DataFrame:
    """The examples of a mixture as evaluation rows: what was trained on has to be learned."""
    examples = mixtures()[key].examples
    return examples.assign(eval_id=examples["example_id"], output_index=0)


def test_a_trainer_that_writes_nothing_is_an_error_and_not_a_trial(
    tmp_path: Path, tiny_folder: Path
) -> None:
    finetuning = {"trainer": "forgetful"}
    study = load_study(write_profile(tmp_path, {"path": str(tiny_folder)}, finetuning=finetuning))
    store = AdapterStore(tmp_path / "adapters")
    words = r"seed-000: ModelError: no adapter_model.safetensors and no model.safetensors"
    with pytest.raises(FinetuneError, match=words):
        list(finetune_all(mixtures(), study, gpu(), store))
    assert not [p for p in store.root.rglob("*") if p.is_file()]
