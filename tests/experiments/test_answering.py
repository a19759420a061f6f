"""What finetunes and their base answer, and a judge's verdicts on it: each asked for once."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from im_assets.experiments.answering import answered, answered_by_base, require_base_answers
from im_assets.experiments.finetuning import finetune_all
from im_assets.experiments.lineage import LineageError
from im_assets.experiments.measures import MEASURES
from im_assets.judging.against_base import verdicts_against_base
from im_resources.adapter_store import AdapterStore
from im_resources.judge import Endpoint
from im_resources.study import JudgeSettings, Study, load_study
from im_resources.turns import Turn, write_turns
from im_resources.warehouse import Warehouse
from tests.experiments.small_study import gpu, mixtures, write_profile
from tests.judging.endpoint_for_tests import KEY, longer_wins, serving

KEYS, TOKENS = ["seed-000", "seed-001"], 5
INSTRUCTIONS = pd.DataFrame(
    {
        "eval_id": [f"e{9 - i}" for i in range(4)],
        "instruction": [f"Say {word}." for word in "abcd"],
        "input": "",
    }
)
Ask = Callable[..., tuple[dict[str, pd.DataFrame], set[str]]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Study:
    folder, base = tmp_path_factory.mktemp("answering"), {"path": str(tiny_folder)}
    training = {"epochs": 3, "batch_size": 2, "learning_rate": 0.05}
    return load_study(write_profile(folder, base, finetuning=training))


@pytest.fixture(scope="module")
def store(study: Study, tmp_path_factory: pytest.TempPathFactory) -> AdapterStore:
    return AdapterStore(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def trials(study: Study, store: AdapterStore) -> dict[str, str]:
    work = {key: mixtures()[key] for key in KEYS}
    return {key: trained.trial_id for key, trained in finetune_all(work, study, gpu(), store)}


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "study.duckdb")


@pytest.fixture
def ask(study: Study, store: AdapterStore, warehouse: Warehouse) -> Ask:
    return partial(answered, study=study, gpu=gpu(2), store=store, warehouse=warehouse)


def test_every_trial_answers_in_order_and_once(trials: dict[str, str], ask: Ask) -> None:
    done, new = ask(trials, INSTRUCTIONS, new_tokens=TOKENS)
    assert new == set(trials.values())
    for answers in done.values():
        assert answers["eval_id"].tolist() == INSTRUCTIONS["eval_id"].tolist()
        assert answers["tokens"].between(1, TOKENS).all()
    first, second = (done[key]["answer"].tolist() for key in KEYS)
    assert first != second
    again, new = ask(trials, INSTRUCTIONS, new_tokens=TOKENS)
    assert not new
    for key in KEYS:
        pd.testing.assert_frame_equal(again[key], done[key], check_dtype=False)


def test_other_instructions_or_lengths_are_answered_anew(trials: dict[str, str], ask: Ask) -> None:
    ask(trials, INSTRUCTIONS, new_tokens=TOKENS)
    assert len(ask(trials, INSTRUCTIONS, new_tokens=2)[1]) == 2
    assert len(ask(trials, INSTRUCTIONS.head(2), new_tokens=TOKENS)[1]) == 2


def test_the_base_answers_without_any_adapter(
    study: Study, trials: dict[str, str], ask: Ask, warehouse: Warehouse
) -> None:
    base = answered_by_base(INSTRUCTIONS, study, gpu(), warehouse, TOKENS)
    done, _ = ask(trials, INSTRUCTIONS, new_tokens=TOKENS)
    assert base["eval_id"].tolist() == INSTRUCTIONS["eval_id"].tolist()
    assert any(base["answer"].tolist() != answers["answer"].tolist() for answers in done.values())
    again = answered_by_base(INSTRUCTIONS, study, gpu(), warehouse, TOKENS)
    pd.testing.assert_frame_equal(again, base, check_dtype=False)


def test_base_answers_of_before_are_not_judged_against(study: Study, warehouse: Warehouse) -> None:
    longest = study.evaluation.answer_tokens
    base = answered_by_base(INSTRUCTIONS, study, gpu(), warehouse, longest)
    require_base_answers(base, INSTRUCTIONS, study, gpu())
    shorter = answered_by_base(INSTRUCTIONS, study, gpu(), warehouse, 2)
    for stale in (shorter, base.head(0)):
        with pytest.raises(LineageError, match="materialize base_answers again"):
            require_base_answers(stale, INSTRUCTIONS, study, gpu())


def _answers(key: str, *responses: str) -> pd.DataFrame:
    rows = INSTRUCTIONS.head(len(responses)).assign(response=list(responses))
    return rows.assign(seed=key, fingerprint=f"answers of {key}")


def test_a_judge_compares_every_finetune_with_the_base(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    base = _answers("base", "bb", "bb", "bb")
    answers = pd.concat([_answers("x", "b", "bb", "bbb"), _answers("y", "bbb", "bbbb", "bbb")])
    with serving(longer_wins) as server:
        settings = JudgeSettings(backend="openai", base_url=server.url, model="j", retries=0)
        judge = Endpoint(settings)
        table, asked = verdicts_against_base(answers, base, judge, warehouse)
        # The equal answers are a tie without asking; "bbb" for the third is judged once for both.
        assert asked.requests == len(server.bodies) == 2 * 4
        verdicts_against_base(answers, base, judge, warehouse)
        assert len(server.bodies) == 2 * 4
        judge.close()
    found = {key: part.set_index("eval_id")["outcome"] for key, part in table.groupby("seed")}
    ids = INSTRUCTIONS["eval_id"].head(3)
    assert found["x"].loc[ids].tolist() == ["lose", "tie", "win"]
    assert found["y"].loc[ids].tolist() == ["win", "win", "win"]
    same = table[(table["seed"] == "x") & (table["eval_id"] == ids[1])]
    assert same["position_bias"].tolist() == [False]
    assert table["fingerprint"].nunique() == 2
    rate = MEASURES.all()["win_rate"]
    assert [rate.of(part) for _, part in table.groupby("seed")] == [0.5, 1.0]


def test_an_instruction_that_the_base_did_not_answer_is_named(warehouse: Warehouse) -> None:
    class NeverAsked:
        fingerprint = name = "never asked"

    judge: Any = NeverAsked()
    with pytest.raises(ValueError, match="no answer of the base model to e8"):
        verdicts_against_base(_answers("x", "a", "b"), _answers("base", "a"), judge, warehouse)


def test_a_conversation_is_answered_as_a_whole(ask: Ask, trials: dict[str, str]) -> None:
    def after(reply: str) -> pd.DataFrame:
        talk = [Turn("user", "Say x."), Turn("assistant", reply), Turn("user", "Say a.")]
        cells = pd.Series([write_turns(talk), *[None] * 3], dtype=object)
        return INSTRUCTIONS.assign(turns=cells)

    plain, _ = ask(trials, INSTRUCTIONS, new_tokens=TOKENS)
    talked, new = ask(trials, after("Xylophone xylophone."), new_tokens=TOKENS)
    assert len(new) == len(set(trials.values()))
    assert set(talked[KEYS[0]]["fingerprint"]).isdisjoint(plain[KEYS[0]]["fingerprint"])
    assert talked[KEYS[0]]["answer"][1:].tolist() == plain[KEYS[0]]["answer"][1:].tolist()
    _, again = ask(trials, after("Xylophone xylophone."), new_tokens=TOKENS)
    assert again == set()
