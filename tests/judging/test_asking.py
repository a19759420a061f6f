"""Many verdicts: kept as they come, asked for once, and stopped by the budget."""

import threading
from pathlib import Path
from typing import Any

import pytest

from im_assets.judging.asking import (
    AT_ONCE,
    LOCAL_CHUNK,
    TIE_MARGIN,
    Asked,
    ask_all,
    preference,
)
from im_assets.judging.comparing import SYSTEM, Comparison
from im_resources.judge import JudgeBudgetError, JudgeError, LocalJudge
from im_resources.language_model.loading import LoadedModel
from im_resources.warehouse import Warehouse
from tests.judging.endpoint_for_tests import (
    Sent,
    Server,
    answers_in,
    endpoint,
    in_turn,
    longer_wins,
    refuses,
    says,
    serving,
)
from tests.language_model.models import plain_model, plain_nll

COMPARISONS = [Comparison(f"Question {i}?", "", "Yes." * (i % 3), "No...") for i in range(12)]
LETTERS = ["A" if len(c.a) > len(c.b) else "B" for c in COMPARISONS]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse.duckdb")


def ask(warehouse: Warehouse, server: Server, **settings: Any) -> Asked:
    with endpoint(server.url, **settings) as judge:
        return ask_all(COMPARISONS, judge, warehouse)


def letters(asked: Asked) -> list[str | None]:
    return [asked.verdicts[c].letter for c in COMPARISONS]


def test_a_second_run_asks_nothing(warehouse: Warehouse) -> None:
    with serving(longer_wins) as server:
        first = ask(warehouse, server)
        assert letters(first) == LETTERS
        assert (first.requests, first.cached, first.failed) == (12, 0, 0)
        assert letters(second := ask(warehouse, server)) == LETTERS
        assert (second.requests, second.cached, second.failed) == (0, 12, 0)
        assert len(server.bodies) == 12
        other_model = ask(warehouse, server, model="another")
        assert (other_model.requests, other_model.cached) == (12, 0)
    with serving(longer_wins) as elsewhere:
        assert ask(warehouse, elsewhere).cached == 0


def test_equal_comparisons_are_asked_about_once(warehouse: Warehouse) -> None:
    with serving(in_turn(says("A"))) as server, endpoint(server.url) as judge:
        same = Comparison("Which?", "", "Equal.", "Equal.")
        asked = ask_all([same, Comparison("Which?", "", "Equal.", "Equal.")], judge, warehouse)
        assert (asked.requests, len(asked.verdicts)) == (1, 1)
        assert ask_all([], judge, warehouse).verdicts == {}


def test_the_budget_stops_keeps_what_is_there_and_a_rerun_goes_on(warehouse: Warehouse) -> None:
    with serving(longer_wins) as server:
        message = (
            r"budget of 5 requests is spent: 5 of 12 verdicts .* are kept; .* raise judge\.max_requ"
        )
        with pytest.raises(JudgeBudgetError, match=message):
            ask(warehouse, server, max_requests=5)
        with pytest.raises(JudgeBudgetError, match="10 of 12 verdicts"):
            ask(warehouse, server, max_requests=5)
        last = ask(warehouse, server, max_requests=5)
        assert (last.requests, last.cached) == (2, 10)
        assert letters(last) == LETTERS
        assert len(server.bodies) == 12


def test_problems_are_recorded_not_cached_and_asked_again(warehouse: Warehouse) -> None:
    broken = True

    def moody(body: dict[str, Any], number: int) -> Sent:
        number = int(body["messages"][1]["content"].split("Question ")[1].split("?")[0])
        if broken and number % 3 == 0:
            return says("Who am I to judge?")
        if broken and number % 3 == 1:
            return refuses(400, "filtered")
        return longer_wins(body)

    with serving(moody) as server:
        asked = ask(warehouse, server)
        assert [v is None for v in letters(asked)] == [i % 3 != 2 for i in range(12)]
        problems = {asked.verdicts[c].problem for c in COMPARISONS}
        assert problems == {
            None,
            "no verdict in the reply 'Who am I to judge?'",
            "Error code: 400 - filtered",
        }
        assert (asked.failed, asked.requests) == (8, 4 * 2 + 4 + 4)
        cached = warehouse.read_table("judge_cache")
        assert len(cached) == 4
        assert set(cached["verdict"]) <= {"A", "B", "tie"}
        broken = False
        again = ask(warehouse, server)
        assert (again.cached, again.failed, again.requests) == (4, 0, 8)
        assert letters(again) == LETTERS


def test_verdicts_are_kept_before_the_run_that_asked_for_them_fails(warehouse: Warehouse) -> None:
    with serving(in_turn(*[says("A")] * 4, refuses(401))) as server:
        with pytest.raises(JudgeError, match="refuses the key"):
            ask(warehouse, server)
        assert len(warehouse.read_table("judge_cache")) == 4
        assert len(server.bodies) <= 4 + AT_ONCE  # what waited was not sent any more


def test_several_requests_are_under_way_at_once(warehouse: Warehouse) -> None:
    together = threading.Barrier(AT_ONCE)

    def all_here(body: dict[str, Any], number: int) -> Sent:
        together.wait(timeout=60)  # breaks, and fails the request, when fewer come
        return longer_wins(body)

    with serving(all_here) as server:
        assert letters(ask(warehouse, server, timeout=90, retries=0)) == LETTERS
        a, b = answers_in(server.bodies[0])
        assert (a, b) in {(c.a, c.b) for c in COMPARISONS}


@pytest.mark.parametrize(
    ("odds", "letter"),
    [(1.0, "A"), (-1.0, "B"), (TIE_MARGIN / 2, "tie"), (-TIE_MARGIN / 2, "tie"), (0.0, "tie")],
)
def test_the_local_judges_preference(odds: float, letter: str) -> None:
    assert preference(odds).letter == letter
    assert preference(float("nan")).letter is None
    assert preference(float("nan")).problem


def test_the_local_judge_compares_the_likelihood_of_two_words(
    tiny_model: LoadedModel, tiny_folder: Path, warehouse: Warehouse
) -> None:
    several = [Comparison(f"Question {i}?", "", "Yes.", "No...") for i in range(LOCAL_CHUNK + 1)]
    asked = ask_all(several, judge := LocalJudge(tiny_model, 2048), warehouse)
    assert (asked.requests, asked.cached, asked.failed) == (0, 0, 0)
    plain, tokenizer = plain_model(tiny_folder), tiny_model.tokenizer
    for comparison in several[:3]:
        prompt = tokenizer(f"{SYSTEM}\n\n{comparison.prompt()}\n\nVerdict:")["input_ids"]
        a, b = (plain_nll(plain, prompt, tokenizer(x)["input_ids"]) for x in (" A", " B"))
        text = tokenizer.decode(prompt)
        assert judge.log_odds([text], " A", " B")[0] == pytest.approx(b - a, abs=1e-3)
        expected = "tie" if abs(b - a) < TIE_MARGIN else "A" if b > a else "B"
        assert asked.verdicts[comparison].letter == expected
    again = ask_all(several, judge, warehouse)
    assert (again.cached, again.verdicts) == (len(several), asked.verdicts)


def test_the_local_judge_says_when_texts_do_not_fit(
    tiny_model: LoadedModel, warehouse: Warehouse
) -> None:
    long = Comparison("Which?", "", "word " * 2000, "short")
    short = Comparison("Which?", "", "word", "short")
    asked = ask_all([long, short], LocalJudge(tiny_model, 2048), warehouse)
    assert asked.verdicts[long].problem == "the texts do not fit into the judge's context"
    assert asked.verdicts[short].letter is not None
    assert asked.failed == 1
