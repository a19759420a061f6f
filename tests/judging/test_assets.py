"""judged_answers and pairwise_judge as assets: from two adapters an arm to a verdict."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_assets.experiments.experiment import seed_of
from im_assets.experiments.finetuning import Finetune, finetune_all, training_settings_id
from im_assets.experiments.lineage import LineageError
from im_assets.judging.assets import definitions
from im_resources.adapter_store import AdapterError, AdapterStore
from im_resources.gpu import GpuResource
from im_resources.judge import JudgeError
from im_resources.study import ProfileError, Study, load_study
from im_resources.warehouse import Warehouse
from im_resources.warehouse_io_manager import WarehouseIOManager
from tests.experiments.small_study import mixtures, write_profile
from tests.judging.endpoint_for_tests import KEY, Sent, in_turn, longer_wins, says, serving

ASKED, SIZE = 5, 4
EVAL_SET = pd.DataFrame(
    [(f"e{9 - i}", k, f"Say {w}.", "", f"{w}!") for i, w in enumerate("abcdefg") for k in (0, 1)],
    columns=["eval_id", "output_index", "instruction", "input", "output"],
)


def small_study(folder: Path, base: Path, **judge: Any) -> Study:
    return load_study(
        write_profile(
            folder,
            {"path": str(base)},
            finetuning={"epochs": 3, "batch_size": 2, "learning_rate": 0.05},
            validation={"sizes": [SIZE, 8], "deciles": 0},
            judge={"instructions": ASKED, "take": "first", "answer_tokens": 6, **judge},
        )
    )


# The set that each arm's finetune is trained on, by the mixture that holds its members.
ARMS = {
    f"rule-{SIZE}-seed-000": "seed-000",
    f"rule-{SIZE}-seed-001": "seed-002",
    f"random-{SIZE}-seed-000": "seed-001",
    f"random-{SIZE}-seed-001": "seed-003",
}


def work(arms: Mapping[str, str]) -> dict[str, Finetune]:
    return {
        key: Finetune(key, seed_of(key), mixtures()[mixture].examples)
        for key, mixture in arms.items()
    }


def finetune(study: Study, store: AdapterStore, arms: Mapping[str, str]) -> None:
    gpu = GpuResource(device="cpu", side_by_side=1)
    assert list(finetune_all(work(arms), study, gpu, store))


def samples(arms: Mapping[str, str], rule_id: str = "rule") -> pd.DataFrame:
    """What selection_samples holds of them."""
    return pd.DataFrame(
        [
            (key, example, one.set_id, rule_id)
            for key, one in work(arms).items()
            for example in one.examples["example_id"]
        ],
        columns=["arm", "example_id", "set_id", "rule_id"],
    )


def adapters(arms: Mapping[str, str], study: Study) -> pd.DataFrame:
    """What selection_adapters holds of them."""
    base = GpuResource(device="cpu").base_fingerprint(study)
    return pd.DataFrame(
        [(key, one.trial_id(study, base), one.set_id) for key, one in work(arms).items()],
        columns=["arm", "trial_id", "set_id"],
    ).assign(settings_id=training_settings_id(study), base_id=base)


def judge_assets(study: Study) -> list[dg.AssetsDefinition]:
    return [a for a in definitions(study).assets or () if isinstance(a, dg.AssetsDefinition)]


@pytest.fixture(scope="session")
def all_adapters(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The adapters of both arms and seeds, finetuned on other examples each."""
    folder = tmp_path_factory.mktemp("all_adapters")
    study, store = small_study(folder, tiny_folder), AdapterStore(folder / "adapters")
    finetune(study, store, ARMS)
    return store.root


@pytest.fixture
def store(tmp_path: Path, all_adapters: Path) -> AdapterStore:
    return AdapterStore(Path(shutil.copytree(all_adapters, tmp_path / "adapters")))


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "study.duckdb")


@pytest.fixture
def make_study(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Study]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return partial(small_study, tmp_path, tiny_folder)


def materialize(
    study: Study,
    store: AdapterStore,
    warehouse: Warehouse,
    drawn: pd.DataFrame | None = None,
    trained: pd.DataFrame | None = None,
) -> dg.ExecuteInProcessResult:
    frames = {
        "eval_set": EVAL_SET,
        "selection_samples": samples(ARMS) if drawn is None else drawn,
        "selection_adapters": adapters(ARMS, study) if trained is None else trained,
    }

    def made(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def table() -> pd.DataFrame:
            return frames[name]

        return table

    return dg.materialize(
        [*map(made, frames), *judge_assets(study)],
        resources={
            "study": study,
            "gpu": GpuResource(device="cpu", side_by_side=2),
            "adapters": store,
            "warehouse": warehouse,
            "io_manager": WarehouseIOManager(database=str(warehouse.path)),
        },
    )


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    [event] = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def through(url: str) -> dict[str, Any]:
    return {"backend": "openai", "base_url": url, "model": "a-judge", "retries": 0}


def test_without_a_judge_there_is_no_asset() -> None:
    assert judge_assets(load_study("demo").model_copy(update={"judge": None})) == []


def test_the_assets_stand_in_the_graph(make_study: Callable[..., Study]) -> None:
    answers, judged = judge_assets(make_study(**through("http://127.0.0.1:1/v1")))
    assert dg.AssetKey("selection_adapters") in answers.asset_deps[answers.key]
    assert answers.key in judged.asset_deps[judged.key]
    assert set(answers.group_names_by_key.values()) == {"judging"}
    assert (answers.op.pool, judged.op.pool) == ("gpu", None)
    assert judge_assets(make_study())[1].op.pool == "gpu"  # the local judge computes


def test_from_adapters_to_a_verdict_and_a_rerun_repeats_nothing(
    make_study: Callable[..., Study],
    store: AdapterStore,
    warehouse: Warehouse,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with serving(longer_wins) as server:
        study = make_study(**through(server.url))
        result = materialize(study, store, warehouse)
        requests = len(server.bodies)
        assert set(server.keys) == {KEY}
        again = materialize(study, store, warehouse)
        assert len(server.bodies) == requests <= 4 * ASKED

    answers = result.output_for_node("judged_answers")
    ids = list(dict.fromkeys(EVAL_SET["eval_id"]))[:ASKED]
    for arm in ("rule", "random"):
        for seed in (0, 1):
            mine = answers[(answers["arm"] == arm) & (answers["seed"] == seed)]
            assert list(mine["eval_id"]) == ids
            trials = adapters(ARMS, study).set_index("arm")["trial_id"]
            assert set(mine["trial_id"]) == {trials[f"{arm}-{SIZE}-seed-{seed:03d}"]}
    assert answers["tokens"].between(1, 6).all()
    assert answers["fingerprint"].nunique() == 4

    table = result.output_for_node("pairwise_judge")
    assert list(table["eval_id"]) == ids * 2
    assert list(table["seed"]) == [0] * ASKED + [1] * ASKED
    both = answers.set_index(["arm", "seed", "eval_id"])["answer"]
    for row in table.to_dict("records"):
        assert row["first_answer"] == both["rule", row["seed"], row["eval_id"]]
        assert row["second_answer"] == both["random", row["seed"], row["eval_id"]]
    lengths = table["first_answer"].str.len() - table["second_answer"].str.len()
    different = table["first_answer"] != table["second_answer"]
    assert different.any()  # two adapters that say other things
    for row, longer, differ in zip(table.to_dict("records"), lengths, different, strict=True):
        if longer:
            winner = "rule" if longer > 0 else "random"
            assert (row["order_1"], row["order_2"]) == (winner, winner)
            assert row["outcome"] == ("win" if longer > 0 else "lose")
        else:
            assert row["outcome"] == "tie"
            assert row["position_bias"] == differ  # of equal length, this judge prefers B
    assert set(table["judge"]) == {"a-judge"}
    assert set(table["rule_id"]) == {"rule"}
    assert metadata(result, "pairwise_judge")["rule"] == "rule"
    assert table["problem"].isna().all()

    first, second = metadata(result, "pairwise_judge"), metadata(again, "pairwise_judge")
    wins = list(table["outcome"]).count("win")
    losses = list(table["outcome"]).count("lose")
    assert first["win rate"] == pytest.approx(wins / ASKED / 2)
    assert first["net score"] == pytest.approx((wins - losses) / ASKED / 2)
    if first["verdict"] != "cannot tell":
        low, high = (first[f"net score, 95 % {end}"] for end in ("from", "to"))
        assert low <= first["net score"] <= high
    assert (first["comparisons judged"], first["comparisons not judged"]) == (2 * ASKED, 0)
    assert first["pairs of finetunes"] == 2
    assert (first["requests"], first["verdicts from the cache"]) == (requests, 0)
    assert (second["requests"], second["verdicts from the cache"]) == (0, requests)
    assert "data:image/png;base64," in first["outcomes"]
    assert metadata(result, "judged_answers")["models that answered in this run"] == 4
    assert metadata(again, "judged_answers")["models that answered in this run"] == 0
    pd.testing.assert_frame_equal(again.output_for_node("judged_answers"), answers)
    pd.testing.assert_frame_equal(again.output_for_node("pairwise_judge"), table)

    tables = ("answer_cache", "judge_cache", "judged_answers", "pairwise_judge")
    stored = [warehouse.read_table(name).to_csv() for name in tables]
    events = [str(e) for run in (result, again) for e in run.all_events]
    assert KEY not in "".join([*stored, *events, caplog.text, *capfd.readouterr()])


def test_another_adapter_or_length_is_answered_anew(
    make_study: Callable[..., Study], store: AdapterStore, warehouse: Warehouse
) -> None:
    with serving(longer_wins) as server:
        study = make_study(**through(server.url))
        materialize(study, store, warehouse)
        judge = study.judge
        assert judge is not None
        shorter = judge.model_copy(update={"answer_tokens": 2})
        result = materialize(study.model_copy(update={"judge": shorter}), store, warehouse)
        assert metadata(result, "judged_answers")["models that answered in this run"] == 4
        assert result.output_for_node("judged_answers")["tokens"].max() <= 2
        other = {**ARMS, f"rule-{SIZE}-seed-000": "seed-002"}
        finetune(study, store, other)
        result = materialize(study, store, warehouse, samples(other), adapters(other, study))
        assert metadata(result, "judged_answers")["models that answered in this run"] == 1


def test_a_judge_that_prefers_a_place_is_found_out(
    make_study: Callable[..., Study], store: AdapterStore, warehouse: Warehouse
) -> None:
    with serving(in_turn(says("A"))) as server:
        result = materialize(make_study(**through(server.url)), store, warehouse)
    assert set(result.output_for_node("pairwise_judge")["outcome"]) == {"tie"}
    found = metadata(result, "pairwise_judge")
    assert (found["position bias rate"], found["net score"]) == (1.0, 0.0)
    assert found["verdict"] == "not distinguishable"


def test_pairs_without_a_verdict_are_counted_and_no_tie(
    make_study: Callable[..., Study], store: AdapterStore, warehouse: Warehouse
) -> None:
    def moody(body: dict[str, Any], number: int) -> Sent:
        return says("Hm.") if "Say a." in json.dumps(body) else longer_wins(body)

    with serving(moody) as server:
        result = materialize(make_study(**through(server.url)), store, warehouse)
    table = result.output_for_node("pairwise_judge")
    silent = table[table["outcome"].isna()]
    assert list(silent["instruction"]) == ["Say a.", "Say a."]
    assert "order 1: no verdict in the reply 'Hm.'" in silent["problem"].iloc[0]
    found = metadata(result, "pairwise_judge")
    judged = found["comparisons judged"], found["comparisons not judged"]
    assert judged == (2 * (ASKED - 1), 2)
    assert found["win rate"] + found["tie rate"] + found["lose rate"] == pytest.approx(1)


def test_when_nothing_could_be_judged_the_step_fails(
    make_study: Callable[..., Study], store: AdapterStore, warehouse: Warehouse
) -> None:
    with serving(in_turn(says("Hm."))) as server:
        study = make_study(**through(server.url))
        with pytest.raises(
            JudgeError, match=r"none of the 10 comparisons could be judged; .* 'Hm\.'"
        ):
            materialize(study, store, warehouse)
    assert warehouse.has_table("answer_cache")  # the answers are not generated again


def test_one_finetune_of_each_arm_makes_no_verdict(
    make_study: Callable[..., Study], store: AdapterStore, warehouse: Warehouse
) -> None:
    with serving(longer_wins) as server:
        result = materialize(make_study(seeds=1, **through(server.url)), store, warehouse)
    found = metadata(result, "pairwise_judge")
    assert (found["verdict"], found["why it cannot tell"]) == ("cannot tell", "one pair")
    assert found["comparisons judged"] == ASKED
    assert "net score, 95 % from" not in found


def test_more_seeds_than_an_arm_has_are_refused(make_study: Callable[..., Study]) -> None:
    with pytest.raises(ProfileError, match=r"judge\.seeds is 4, and one of the arms has 3"):
        make_study(seeds=4)


def test_the_local_judge_warns_that_it_is_no_evidence(
    make_study: Callable[..., Study], store: AdapterStore, warehouse: Warehouse
) -> None:
    study = make_study()
    result = materialize(study, store, warehouse)
    found = metadata(result, "pairwise_judge")
    assert "no evidence" in found["warning"]
    assert (found["requests"], found["comparisons judged"]) == (0, 2 * ASKED)
    again = metadata(materialize(study, store, warehouse), "pairwise_judge")
    assert again["verdicts from the cache"] > 0
    assert again["shares"] == found["shares"]


def test_an_arm_that_was_not_finetuned_is_named(
    make_study: Callable[..., Study], warehouse: Warehouse, store: AdapterStore, tmp_path: Path
) -> None:
    study = make_study()
    trained = adapters(ARMS, study)
    rows = trained["arm"] != f"rule-{SIZE}-seed-000"
    with pytest.raises(LineageError, match="rule-4-seed-000 is not finetuned"):
        materialize(study, store, warehouse, trained=trained[rows])
    # Its table says that it was, but its folder is gone.
    trial = trained.loc[~rows, "trial_id"].item()
    with pytest.raises(AdapterError, match=rf"{trial} is not in .*materialize"):
        materialize(study, AdapterStore(tmp_path / "empty"), warehouse)


def test_an_arm_that_was_drawn_again_and_not_trained_is_not_judged(
    make_study: Callable[..., Study], warehouse: Warehouse, store: AdapterStore
) -> None:
    redrawn = samples({**ARMS, f"random-{SIZE}-seed-000": "seed-003"})
    with pytest.raises(LineageError, match=r"random-4-seed-000.*materialize selection_adapters"):
        materialize(make_study(), store, warehouse, drawn=redrawn)


@pytest.mark.parametrize(
    ("column", "words"), [("settings_id", "other settings"), ("base_id", "another base")]
)
def test_arms_that_were_not_trained_alike_are_not_compared(
    make_study: Callable[..., Study],
    warehouse: Warehouse,
    store: AdapterStore,
    column: str,
    words: str,
) -> None:
    study = make_study()
    trained = adapters(ARMS, study)
    trained.loc[trained["arm"] == f"random-{SIZE}-seed-000", column] = "other"
    with pytest.raises(LineageError, match=f"random-4-seed-000 was finetuned with {words}"):
        materialize(study, store, warehouse, trained=trained)


def test_arms_of_two_rules_are_not_compared(
    make_study: Callable[..., Study], warehouse: Warehouse, store: AdapterStore
) -> None:
    one = {key: ARMS[key] for key in ARMS if key.startswith("rule")}
    other = {key: ARMS[key] for key in ARMS if key not in one}
    drawn = pd.concat([samples(one, "rule"), samples(other, "earlier rule")])
    with pytest.raises(LineageError, match=r"drawn by 2 rules; materialize selection_samples"):
        materialize(make_study(), store, warehouse, drawn=drawn)
