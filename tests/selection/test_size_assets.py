"""size_search and dolly_selection together: a tiny model is finetuned on each size, once."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from im_assets.experiments.evaluation import evaluate_adapters, evaluation_rows, overall
from im_assets.rule.document import coefficient_table
from im_assets.selection.assets import selection_assets
from im_assets.selection.size_search import split_halves
from im_resources.adapter_store import AdapterStore
from im_resources.study import Study, load_study
from im_resources.warehouse import Warehouse
from tests.experiments.small_study import gpu, write_profile
from tests.selection.pools import linear_rule

POOL = 12
IDS = [f"id-{i:02d}" for i in range(POOL)]
LENGTHS = np.random.default_rng(0).permutation(POOL).astype(float)
SEARCH = {"smallest": 2, "largest": 9, "trials": 3}


def frames() -> dict[str, pd.DataFrame]:
    texts = {
        "instruction": [f"Say the number {i}." for i in range(POOL)],
        "input": "",
        "output": [f"The number is {i}." for i in range(POOL)],
    }
    evaluation = pd.DataFrame(
        [
            (f"e{i}", j, f"Name number {i}.", "", f"It is {i + j}.")
            for i in range(4)
            for j in (0, 1)
        ],
        columns=["eval_id", "output_index", "instruction", "input", "output"],
    )
    scores = pd.DataFrame({"example_id": IDS, "indicator": "len_out", "value": LENGTHS})
    return {
        "dolly_dataset": pd.DataFrame({"example_id": IDS, **texts, "category": "qa"}),
        "dolly_scores": scores,
        "quality_rule": coefficient_table(linear_rule(len_out=-0.1)),
        "eval_set": evaluation,
    }


def materialize(study: Study) -> dict[str, pd.DataFrame]:
    def made(name: str, frame: pd.DataFrame) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def table() -> pd.DataFrame:
            return frame

        return table

    resources: dict[str, Any] = {
        "study": study,
        "gpu": gpu(),
        "adapters": AdapterStore(study.folder / "adapters"),
        "warehouse": Warehouse(study.warehouse),
        "io_manager": dg.mem_io_manager,
    }
    tables = [made(name, frame) for name, frame in frames().items()]
    result = dg.materialize([*tables, *selection_assets(study)], resources=resources)
    names = ("size_search", "dolly_selection")
    return {name: result.output_for_node(name) for name in names}


@pytest.fixture
def study(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    selection = {"strategy": "rule", "size": "searched", "search": SEARCH}
    profile = write_profile(
        tmp_path,
        {"path": str(tiny_folder)},
        selection=selection,
        finetuning={"epochs": 1, "batch_size": 4, "learning_rate": 5e-3},
    )
    return load_study(profile)


def test_the_size_is_searched_with_finetunes_and_then_selected(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = materialize(study)
    trials, selection = tables["size_search"], tables["dolly_selection"]
    assert list(trials["method"]) == ["blend_search"] * 3 + ["grid"] * 3
    [chosen] = trials[trials["chosen"]].to_dict("records")
    assert chosen["method"] == "blend_search"
    searched = trials[trials["method"] == "blend_search"]
    assert chosen["search_loss"] == searched["search_loss"].min()
    # The selection has that size, and is what the rule ranks first: the longest.
    expected = [IDS[i] for i in np.argsort(-LENGTHS)[: chosen["size"]]]
    assert selection["example_id"].tolist() == expected
    assert set(selection["strategy"]) == {"rule"}
    exported = (study.folder / "selection.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["example_id"] for line in exported] == expected

    # The losses are those of the adapters on disk, each half by itself.
    store, size = AdapterStore(study.folder / "adapters"), chosen["size"]
    folder, manifest = store.latest(f"size-{size}-seed-000")
    assert manifest["examples"] == size
    rows = evaluation_rows(frames()["eval_set"], study.evaluation)
    [(_, losses)] = evaluate_adapters({"one": folder}, rows, study, gpu())
    for half, column in zip(
        split_halves(rows["eval_id"].tolist()), ("search_loss", "report_loss"), strict=True
    ):
        mine = losses[losses["eval_id"].isin(half)]
        assert chosen[column] == pytest.approx(overall(mine, "token"), rel=1e-5)

    # Again: nothing is trained or evaluated a second time, and nothing changes.
    def must_not(*_: object) -> None:
        raise AssertionError("trained or evaluated again")

    monkeypatch.setattr("im_assets.experiments.finetuning._train", must_not)
    monkeypatch.setattr("im_assets.experiments.assets.evaluate_adapters", must_not)
    again = materialize(study)
    pd.testing.assert_frame_equal(again["size_search"], trials)
    pd.testing.assert_frame_equal(again["dolly_selection"], selection)


def test_a_given_size_needs_no_search(study: Study) -> None:
    given = study.selection.model_copy(update={"size": 0.25})
    [asset] = selection_assets(study.model_copy(update={"selection": given}))
    assert asset.key == dg.AssetKey("dolly_selection")
