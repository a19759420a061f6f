"""rsLoRA and DoRA: settings of the trainer lora, published as plain PEFT adapters."""

from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoTokenizer

from im_assets.experiments.evaluation import evaluate_adapters
from im_assets.experiments.finetuning import finetune_all
from im_resources.adapter_store import AdapterStore
from im_resources.study import load_study
from tests.experiments.small_study import gpu, mixtures, write_profile
from tests.experiments.test_adapter_in_plain_peft import ROWS
from tests.language_model.models import plain_model, plain_nll

SETTINGS = {"epochs": 4, "batch_size": 2, "learning_rate": 0.01, "target_modules": ["o_proj"]}
WEIGHTS = "adapter_model.safetensors"


@pytest.mark.parametrize("kind", [{"use_rslora": True}, {"use_dora": True}])
def test_rslora_and_dora_are_pefts_own(
    tmp_path: Path, tiny_folder: Path, kind: dict[str, bool]
) -> None:
    weights: list[dict[str, bytes]] = []
    for name, settings in (("lora", {}), ("side by side", kind), ("alone", kind)):
        finetuning = SETTINGS | settings
        study = load_study(
            write_profile(tmp_path, {"path": str(tiny_folder)}, finetuning=finetuning)
        )
        store = AdapterStore(tmp_path / name)
        workers = 2 if name == "side by side" else 1
        trained = dict(finetune_all(mixtures(), study, gpu(workers), store))
        for trial in trained.values():
            assert trial.manifest["losses"][-1] < trial.manifest["losses"][0]
        folders = {key: store.folder(trial.trial_id) for key, trial in trained.items()}
        weights.append({key: (f / WEIGHTS).read_bytes() for key, f in folders.items()})
    assert weights[1] == weights[2]
    assert all(weights[1][key] != weights[0][key] for key in folders)

    [(_, losses)] = evaluate_adapters({"seed-000": folders["seed-000"]}, ROWS, study, gpu())
    plain: Any = PeftModel.from_pretrained(plain_model(tiny_folder), folders["seed-000"]).eval()
    config: Any = plain.peft_config["default"]
    assert {name: getattr(config, name) for name in kind} == kind
    module = plain.get_base_model().model.layers[0].self_attn.o_proj
    assert module.scaling["default"] == pytest.approx(16 / 8**0.5 if config.use_rslora else 2)
    assert ("default" in module.lora_magnitude_vector) == config.use_dora
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    ids = tokenizer("Question: Add the numbers.\n2 and 3\nAnswer:")["input_ids"]
    output = [*tokenizer(" They make five.")["input_ids"], tokenizer.eos_token_id]
    mine = losses[losses["eval_id"] == "add"]["nll"].item()
    assert mine == pytest.approx(plain_nll(plain, ids, output), rel=1e-5)
