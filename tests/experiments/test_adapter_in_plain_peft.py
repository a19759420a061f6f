"""What is published is an ordinary PEFT adapter, with the loss that anybody else would measure."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer

from im_assets.experiments.evaluation import evaluate_adapters, evaluate_base, overall
from im_assets.experiments.finetuning import finetune_all
from im_resources.adapter_store import AdapterStore
from im_resources.study import load_study
from tests.experiments.small_study import gpu, mixtures, write_profile
from tests.language_model.models import demo_model, plain_model, plain_nll

ROWS = pd.DataFrame(
    [
        ("france", 0, "Name the capital of France.", "", "I do not know the capital of France."),
        ("france", 1, "Name the capital of France.", "", "Paris."),
        ("add", 0, "Add the numbers.", "2 and 3", "They make five."),
        ("france", 2, "Name the capital of France.", "", "The capital is Paris, on the Seine."),
        ("cook", 0, "How is rice cooked?", "", "Simmer it in twice its volume of water, covered."),
    ],
    columns=["eval_id", "output_index", "instruction", "input", "output"],
)


def by_hand(model: Any, tokenizer: Any, row: Any) -> tuple[float, int]:
    """The response's loss by plain transformers, from the texts; 12 is max_output_tokens."""
    context = f"{row.input}\n" if row.input else ""
    prompt = tokenizer(f"Question: {row.instruction}\n{context}Answer:")["input_ids"]
    output = [*tokenizer(f" {row.output}")["input_ids"], tokenizer.eos_token_id][:12]
    return plain_nll(model, prompt, output), len(output)


@pytest.mark.model
def test_a_published_adapter_loads_in_plain_peft_with_the_loss_that_was_measured(
    tmp_path: Path,
) -> None:
    study = load_study(
        write_profile(
            tmp_path,
            load_study("demo").models.needed("base").model_dump(exclude_none=True),
            evaluation={"max_output_tokens": 12},
        )
    )
    store = AdapterStore(tmp_path / "adapters")
    work = {"seed-000": mixtures()["seed-000"]}
    [(key, trained)] = finetune_all(work, study, gpu(), store)
    folder = store.folder(trained.trial_id)
    names = {path.name for path in folder.rglob("*")}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]

    [(_, losses)] = evaluate_adapters({key: folder}, ROWS, study, gpu())
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    plain = PeftModel.from_pretrained(plain_model(demo_model()), folder).eval()
    assert not [p for p in plain.parameters() if p.dtype != torch.float32]
    expected = [by_hand(plain, tokenizer, row) for row in ROWS.itertuples()]
    found = ROWS.merge(losses, on=["eval_id", "output_index"], validate="one_to_one")
    assert len(losses) == len(ROWS)
    assert found["tokens"].tolist() == [tokens for _, tokens in expected]
    assert found["loss"].tolist() == pytest.approx([n / t for n, t in expected], abs=1e-4)
    token_weighted = sum(n for n, _ in expected) / sum(t for _, t in expected)
    assert overall(losses, "token") == pytest.approx(token_weighted, abs=1e-4)

    # It is the adapter's loss: without it, plain transformers measures the base's, another one.
    base = evaluate_base(ROWS, study, gpu())
    with plain.disable_adapter():
        without = [by_hand(plain, tokenizer, row) for row in ROWS.itertuples()]
    at_base = ROWS.merge(base, on=["eval_id", "output_index"])["loss"]
    assert at_base.tolist() == pytest.approx([n / t for n, t in without], abs=1e-4)
    assert abs(overall(base, "token") - token_weighted) > 0.01
    assert found["loss"][0] < at_base[0]  # what it was trained on


def test_adapters_of_several_seeds_are_evaluated_side_by_side(
    tmp_path: Path, tiny_folder: Path
) -> None:
    study = load_study(write_profile(tmp_path, {"path": str(tiny_folder)}))
    store = AdapterStore(tmp_path / "adapters")
    trained = dict(finetune_all(mixtures(), study, gpu(2), store))
    folders = {key: store.folder(trained[key].trial_id) for key in mixtures()}
    together = dict(evaluate_adapters(folders, ROWS, study, gpu(2)))
    assert len({overall(losses, "token") for losses in together.values()}) == len(folders)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    for key, folder in folders.items():
        [(_, alone)] = evaluate_adapters({key: folder}, ROWS, study, gpu(1))
        pd.testing.assert_frame_equal(together[key], alone, check_exact=True)
        plain = PeftModel.from_pretrained(plain_model(tiny_folder), folder).eval()
        ids = tokenizer("Question: Add the numbers.\n2 and 3\nAnswer:")["input_ids"]
        output = [*tokenizer(" They make five.")["input_ids"], tokenizer.eos_token_id]
        mine = alone[alone["eval_id"] == "add"]["nll"].item()
        assert mine == pytest.approx(plain_nll(plain, ids, output), rel=1e-5)
