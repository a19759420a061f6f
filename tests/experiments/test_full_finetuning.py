"""trainer: full, from a profile to a folder that plain transformers loads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from im_assets.experiments.evaluation import evaluate_adapters, evaluate_base, overall
from im_assets.experiments.finetuning import finetune_all
from im_resources.adapter_store import AdapterStore
from im_resources.study import Study, load_study
from tests.experiments.small_study import gpu, mixtures, write_profile
from tests.experiments.test_adapter_in_plain_peft import ROWS, by_hand

WEIGHTS = "model.safetensors"


def full_study(folder: Path, base: dict[str, Any], precision: str, **finetuning: Any) -> Study:
    models = {"base": base, "embedding": base, "precision": precision, "max_length": 64}
    settings = {"trainer": "full", "epochs": 2, "batch_size": 2, "learning_rate": 1e-3}
    return load_study(
        write_profile(
            folder,
            base,
            models=models,
            finetuning=settings | finetuning,
            evaluation={"max_output_tokens": 12},
        )
    )


def trained(study: Study, store: AdapterStore, keys: list[str], workers: int) -> dict[str, Path]:
    """The folders of the finetunes, whose training losses have to fall."""
    work = {key: mixtures()[key] for key in keys}
    done = dict(finetune_all(work, study, gpu(workers), store))
    for trial in done.values():
        assert trial.now
        assert trial.manifest["losses"][-1] < trial.manifest["losses"][0]
    return {key: store.folder(trial.trial_id) for key, trial in done.items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_weights_are_trained_alone_as_side_by_side_and_measured_as_anybody_would(
    tmp_path: Path, tiny_folder: Path, precision: str
) -> None:
    study = full_study(tmp_path, {"path": str(tiny_folder)}, precision)
    untouched = evaluate_base(ROWS, study, gpu())
    store = AdapterStore(tmp_path / "together")
    keys = ["seed-000", "seed-001", "seed-002"]
    folders = trained(study, store, keys, workers=2)
    together = {key: (folder / WEIGHTS).read_bytes() for key, folder in folders.items()}
    assert len(set(together.values())) == len(keys)
    torch.rand(5)  # the state of the global generator does not matter
    alone = trained(study, AdapterStore(tmp_path / "alone"), ["seed-001"], workers=1)
    assert (alone["seed-001"] / WEIGHTS).read_bytes() == together["seed-001"]

    losses = dict(evaluate_adapters(folders, ROWS, study, gpu(2)))
    tokenizer = AutoTokenizer.from_pretrained(folders["seed-000"])
    plain = AutoModelForCausalLM.from_pretrained(folders["seed-000"], dtype="auto").eval()
    assert plain.dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
    expected = [by_hand(plain, tokenizer, row) for row in ROWS.itertuples()]
    found = ROWS.merge(losses["seed-000"], on=["eval_id", "output_index"])
    tolerance = 1e-4 if precision == "fp32" else 2e-2  # other batches round otherwise
    assert found["loss"].tolist() == pytest.approx([n / t for n, t in expected], abs=tolerance)
    assert abs(overall(losses["seed-000"], "token") - overall(untouched, "token")) > 0.1
    # The shared base is what it was.
    assert evaluate_base(ROWS, study, gpu())["nll"].tolist() == untouched["nll"].tolist()


def test_gradient_checkpointing_trains_all_weights_the_same(
    tmp_path: Path, tiny_folder: Path
) -> None:
    losses = []
    for checkpointing in (False, True):
        base = {"path": str(tiny_folder)}
        study = full_study(tmp_path, base, "fp32", gradient_checkpointing=checkpointing)
        store = AdapterStore(tmp_path / str(checkpointing))
        folder = trained(study, store, ["seed-000"], workers=1)["seed-000"]
        losses.append(json.loads((folder / "manifest.json").read_text())["losses"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
