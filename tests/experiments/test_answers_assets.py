"""Answers and verdicts of an experiment as assets, on a tiny model: from adapters to measures."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_assets.experiments.answering import answered_by_base
from im_assets.experiments.answers_assets import (
    answers_asset,
    base_answers,
    verdicts_asset,
)
from im_assets.experiments.finetuning import finetune_all
from im_assets.experiments.measures import measured, measures_of
from im_assets.mixtures.experiment import mixture_experiment
from im_resources.adapter_store import AdapterStore
from im_resources.study import Study, load_study
from im_resources.warehouse import Warehouse, WarehouseIOManager
from tests.experiments.small_study import gpu, mixtures, write_profile
from tests.judging.endpoint_for_tests import KEY, longer_wins, serving

KEYS = ["seed-000", "seed-001"]
EVAL_SET = pd.DataFrame(
    [
        (f"e{9 - i}", k, f"Say {word}.", "", f"{word}!", "", "", "(?s)^.*$" if word == "f" else "")
        for i, word in enumerate("abcdefg")
        for k in (0, 1)
    ],
    columns=["eval_id", "output_index", "instruction", "input", "output", "category", "answer",
             "pattern"],
)  # fmt: skip


def small_study(folder: Path, base: Path, **settings: Any) -> Study:
    evaluation = {"answer_tokens": 5, "measures": ["exact_match"]}
    return load_study(
        write_profile(
            folder,
            {"path": str(base)},
            finetuning={"epochs": 3, "batch_size": 2, "learning_rate": 0.05},
            evaluation=evaluation | settings.pop("evaluation", {}),
            **settings,
        )
    )


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    store = AdapterStore(folder / "adapters")
    work = {key: mixtures()[key] for key in KEYS}
    assert len(list(finetune_all(work, small_study(folder, tiny_folder), gpu(), store))) == 2
    return store.root


@pytest.fixture
def store(tmp_path: Path, finetuned: Path) -> AdapterStore:
    return AdapterStore(Path(shutil.copytree(finetuned, tmp_path / "adapters")))


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "study.duckdb")


def materialize(
    study: Study, rows: pd.DataFrame, store: AdapterStore, warehouse: Warehouse, judged: bool
) -> dg.ExecuteInProcessResult:
    @dg.asset
    def eval_set() -> pd.DataFrame:
        return rows

    experiment = mixture_experiment(study)
    assets: list[Any] = [eval_set, base_answers, answers_asset(experiment)]
    assets += [verdicts_asset(experiment, study)] if judged else []
    return dg.materialize(
        assets,
        tags={
            "dagster/asset_partition_range_start": KEYS[0],
            "dagster/asset_partition_range_end": KEYS[-1],
        },
        resources={
            "study": study,
            "gpu": gpu(2),
            "adapters": store,
            "warehouse": warehouse,
            "io_manager": WarehouseIOManager(database=str(warehouse.path)),
        },
    )


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, dict[str, Any]]:
    return {
        str(event.partition): {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_materializations_for_node(asset)
    }


def test_what_is_verified_is_answered_once_and_only_that(
    tmp_path: Path, tiny_folder: Path, store: AdapterStore, warehouse: Warehouse
) -> None:
    study = small_study(tmp_path, tiny_folder)
    asked = EVAL_SET.drop_duplicates("eval_id").iloc[:3].reset_index(drop=True)
    said = answered_by_base(asked, study, gpu(), Warehouse(tmp_path / "other.duckdb"), 5)
    rows = EVAL_SET.copy()
    right = dict(zip(said["eval_id"], said["answer"], strict=True))
    rows["answer"] = rows["eval_id"].map(right).fillna("")

    result = materialize(study, rows, store, warehouse, judged=False)
    base = warehouse.read_table("base_answers")
    assert base["eval_id"].tolist() == asked["eval_id"].tolist()  # the others carry no answer
    assert base["response"].tolist() == said["answer"].tolist()
    assert measures_of(study)[0].of(base) == 1  # the base gives the answers that were its own

    answers = warehouse.read_table("eval_answers")
    assert set(answers["seed"]) == set(KEYS)
    assert answers["tokens"].between(1, 5).all()
    assert answers["adapter"].nunique() == answers["fingerprint"].nunique() == 2
    found = measured(measures_of(study)[0], answers, "seed")
    for key, part in answers.groupby("seed"):
        same = [r.strip(".,;:!?").casefold() == a.strip(".,;:!?").casefold()
                for r, a in zip(part["response"], part["answer"], strict=True)]  # fmt: skip
        assert found[str(key)] == pytest.approx(sum(same) / 3)
        shown = metadata(result, "eval_answers")[str(key)]
        assert shown["exact match"] == pytest.approx(found[str(key)])
        assert shown["answered in this run"] is True

    again = materialize(study, rows, store, warehouse, judged=False)
    assert all(not m["answered in this run"] for m in metadata(again, "eval_answers").values())
    pd.testing.assert_frame_equal(warehouse.read_table("eval_answers"), answers)


def test_a_judge_compares_every_finetune_with_the_base(
    tmp_path: Path,
    tiny_folder: Path,
    store: AdapterStore,
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(longer_wins) as server:
        endpoint = {"backend": "openai", "base_url": server.url, "model": "a-judge", "retries": 0}
        study = small_study(
            tmp_path,
            tiny_folder,
            evaluation={"measures": ["win_rate", "pattern_match"]},
            judge={**endpoint, "instructions": 4},
        )
        result = materialize(study, EVAL_SET, store, warehouse, judged=True)
        requests = len(server.bodies)
        materialize(study, EVAL_SET, store, warehouse, judged=True)
        assert len(server.bodies) == requests <= 2 * 2 * 4  # a verdict is asked for once

    answers, base = warehouse.read_table("eval_answers"), warehouse.read_table("base_answers")
    assert base["instruction"].tolist() == [f"Say {w}." for w in "abcdf"]  # f carries the pattern
    table = warehouse.read_table("eval_verdicts")
    assert table.groupby("seed")["eval_id"].nunique().to_dict() == dict.fromkeys(KEYS, 4)
    both = answers.merge(base[["eval_id", "response"]], on="eval_id", suffixes=("", "_base"))
    both = table.merge(both, on=["seed", "eval_id"], suffixes=("", "_answers"))
    longer = both["response"].str.len() - both["response_base"].str.len()
    expected = ["win" if d > 0 else "lose" if d < 0 else "tie" for d in longer]
    assert both["outcome"].tolist() == expected
    assert set(expected) != {"tie"}
    same = both["response"] == both["response_base"]
    assert not both.loc[same, "position_bias"].any()
    assert (both["adapter"] == both["adapter_answers"]).all()

    win_rate, pattern_match, _ = measures_of(study)
    for key, value in measured(win_rate, table, "seed").items():
        mine = [e for e, k in zip(expected, both["seed"], strict=True) if k == key]
        assert value == pytest.approx((mine.count("win") + mine.count("tie") / 2) / 4)
        assert metadata(result, "eval_verdicts")[key]["win rate"] == pytest.approx(value)
    assert measured(pattern_match, answers, "seed") == dict.fromkeys(KEYS, 1.0)
