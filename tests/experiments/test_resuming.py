import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from im_assets.experiments.finetuning import FinetuneError, finetune_all, training_settings_id
from im_resources.adapter_store import AdapterStore
from im_resources.study import Study, load_study
from tests.experiments.small_study import gpu, mixtures, write_profile
from tests.language_model.models import write_model
from tests.processes import Forked, wait_for

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def profile(tmp_path: Path, tiny_folder: Path) -> str:
    return write_profile(tmp_path, {"path": str(tiny_folder)})


def trained_now(study: Study, store: AdapterStore, side_by_side: int = 1) -> dict[str, bool]:
    work = finetune_all(mixtures(), study, gpu(side_by_side), store)
    return {key: trained.now for key, trained in work}


def manifests(study: Study, store: AdapterStore) -> dict[str, dict[str, Any]]:
    base = gpu().base_fingerprint(study)
    return {key: store.there(one.trial_id(study, base)) for key, one in mixtures().items()}


def weights(study: Study, store: AdapterStore) -> dict[str, bytes]:
    return {
        key: (store.folder(manifest["fingerprint"]) / WEIGHTS).read_bytes()
        for key, manifest in manifests(study, store).items()
    }


def test_a_killed_run_is_resumed_to_the_same_adapters(tmp_path: Path, profile: str) -> None:
    store = AdapterStore(tmp_path / "killed")
    module = "tests.experiments.small_study"
    child = Forked(module, profile, str(store.root), log=tmp_path / "log")
    complete = "[!.]*/manifest.json"  # a folder that is being written starts with a dot
    try:
        wait_for(lambda: any(store.root.glob(complete)), child)
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    study = load_study(profile)
    base = gpu().base_fingerprint(study)
    found = {key: store.find(one.trial_id(study, base)) for key, one in mixtures().items()}
    published = {key for key, manifest in found.items() if manifest is not None}
    assert 0 < len(published) < 4

    assert trained_now(study, store) == {key: key not in published for key in mixtures()}
    uninterrupted = AdapterStore(tmp_path / "uninterrupted")
    assert all(trained_now(study, uninterrupted, side_by_side=2).values())
    assert weights(study, store) == weights(study, uninterrupted)
    for key, manifest in manifests(study, store).items():
        assert manifest["losses"] == manifests(study, uninterrupted)[key]["losses"]
    assert not any(trained_now(study, store).values())  # and a third run has nothing to do


def test_only_what_changed_is_trained_again(tmp_path: Path, tiny_folder: Path) -> None:
    store = AdapterStore(tmp_path / "adapters")
    base = {"path": str(tiny_folder)}
    first = load_study(write_profile(tmp_path, base))
    trained_now(first, store)
    before = weights(first, store)

    longer = {"epochs": 1, "batch_size": 2, "learning_rate": 2e-3}
    changed = load_study(write_profile(tmp_path, base, finetuning=longer))
    assert all(trained_now(changed, store).values())
    assert all(weights(changed, store)[key] != before[key] for key in before)
    # Evaluation settings change no adapter, and going back finds the old ones.
    other = load_study(write_profile(tmp_path, base, evaluation={"max_outputs": 1}))
    assert not any(trained_now(other, store).values())
    assert weights(other, store) == before

    work = mixtures()
    work["seed-001"].examples["example_id"] = ["another", "four", "examples", "here"]
    flags = {key: trained.now for key, trained in finetune_all(work, first, gpu(), store)}
    assert flags == {key: key == "seed-001" for key in work}


def test_a_finetune_that_diverges_stops_the_run_and_publishes_nothing(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    poisoned = load_file(folder / "model.safetensors")
    poisoned["model.layers.0.mlp.down_proj.weight"].fill_(torch.inf)
    save_file(poisoned, folder / "model.safetensors", {"format": "pt"})
    study = load_study(write_profile(tmp_path, {"path": str(folder)}))
    store = AdapterStore(tmp_path / "adapters")
    with pytest.raises(FinetuneError, match=r"nan at step 1 .*base model itself.*damaged"):
        trained_now(study, store)
    assert not any(store.root.rglob("manifest.json"))


def test_the_manifest_says_what_was_trained_on_what(tmp_path: Path, profile: str) -> None:
    study, store = load_study(profile), AdapterStore(tmp_path / "adapters")
    steps: list[tuple[str, int, int, int]] = []
    for key, trained in finetune_all(
        mixtures(), study, gpu(), store, lambda *step: steps.append(step)
    ):
        assert trained.now
        manifest = trained.manifest
        assert manifest == store.there(trained.trial_id)
        assert manifest["set"] == trained.set_id == mixtures()[key].set_id
        assert manifest["settings"] == trained.settings_id == training_settings_id(study)
        assert manifest["seed"] == mixtures()[key].seed
        assert (manifest["examples"], len(manifest["losses"])) == (4, 4)
        assert manifest["precision"] == "fp32"
        assert manifest["base"] == gpu().base_fingerprint(study)
        assert manifest["finetuning"]["learning_rate"] == 2e-3
        mine = [step for step in steps if step[0] == key]
        assert [step[1:3] for step in mine] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert sum(step[3] for step in mine) == manifest["tokens"]


def test_a_trial_that_several_partitions_ask_for_is_trained_once(
    tmp_path: Path, profile: str
) -> None:
    study, store = load_study(profile), AdapterStore(tmp_path / "adapters")
    one = mixtures()["seed-000"]
    work = {key: replace(one, partition=key) for key in ("seed-000", "rule-4-seed-000")}
    work["rule-4-seed-001"] = replace(one, partition="rule-4-seed-001", seed=1)
    found = dict(finetune_all(work, study, gpu(), store))
    assert set(found) == set(work)
    assert found["seed-000"].trial_id == found["rule-4-seed-000"].trial_id
    assert len({trained.trial_id for trained in found.values()}) == 2
    assert len({trained.set_id for trained in found.values()}) == 1
    assert sum(trained.now for trained in found.values()) == 2  # two trials, three partitions
    assert len(list(store.root.iterdir())) == 2
    assert not any(trained.now for _, trained in finetune_all(work, study, gpu(), store))
