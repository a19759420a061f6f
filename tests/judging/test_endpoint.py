"""The client of an OpenAI-compatible endpoint, against a server that misbehaves in every way."""

import logging
from typing import Any

import pytest

from im_assets.judging.asking import verdict_of
from im_assets.judging.comparing import REMINDER, Comparison
from im_resources.judge import (
    REPLY_TOKENS,
    BadReplyError,
    Endpoint,
    JudgeBudgetError,
    JudgeError,
    Reply,
    RequestError,
)
from tests.judging.endpoint_for_tests import (
    KEY,
    Sent,
    endpoint,
    in_turn,
    refuses,
    says,
    serving,
    settings,
)

COMPARISON = Comparison("Name a colour.", "", "Blue.", "Red, for example.")
SOON = {"retry_after_ms": "1"}
QUESTION = [("user", "Which?")]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_the_request_asks_for_one_short_reply_without_chance() -> None:
    with serving(in_turn(says("A"))) as server, endpoint(server.url) as judge:
        assert judge.ask([("system", "s"), ("user", "u")]) == Reply("A", complete=True)
        [body] = server.bodies
        assert body["messages"] == [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
        ]
        assert (body["model"], body["temperature"]) == ("judge", 0)
        assert body["max_tokens"] == REPLY_TOKENS
        assert server.keys == [KEY]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_errors_that_pass_are_retried(status: int) -> None:
    answer = in_turn(refuses(status, **SOON), refuses(status, **SOON), says("B"))
    with serving(answer) as server, endpoint(server.url, retries=2) as judge:
        assert judge.ask(QUESTION).text == "B"
        assert judge.requests == len(server.bodies) == 3


def test_a_rate_limit_without_a_wait_is_retried() -> None:
    answer = in_turn(refuses(429, Retry_After="0"), says("B"))
    with serving(answer) as server, endpoint(server.url, retries=1) as judge:
        assert judge.ask(QUESTION).text == "B"
        assert judge.requests == 2


def test_an_error_that_stays_is_one_requests_problem() -> None:
    with (
        serving(in_turn(refuses(500, "out of memory", **SOON))) as server,
        endpoint(server.url, retries=1) as judge,
    ):
        with pytest.raises(RequestError, match="500 - out of memory"):
            judge.ask(QUESTION)
        assert verdict_of(COMPARISON, judge).problem == "Error code: 500 - out of memory"
        assert judge.requests == 4


def test_a_refused_request_is_not_repeated() -> None:
    with serving(in_turn(refuses(400, "too long"))) as server, endpoint(server.url) as judge:
        assert verdict_of(COMPARISON, judge).problem == "Error code: 400 - too long"
        assert judge.requests == 1


def test_a_server_that_words_its_errors_otherwise_is_quoted() -> None:
    answer = in_turn(Sent('{"detail": "no such template"}', 400))
    with serving(answer) as server, endpoint(server.url) as judge:
        assert "no such template" in str(verdict_of(COMPARISON, judge).problem)


def test_a_reply_that_does_not_come_in_time_is_retried_then_a_problem() -> None:
    late = Sent(says("A").body, delay=1.0)
    with serving(in_turn(late)) as server, endpoint(server.url, retries=1, timeout=0.2) as judge:
        assert verdict_of(COMPARISON, judge).problem == "no reply within 0.2 s"
        assert judge.requests == 2
    with (
        serving(in_turn(late, says("A"))) as server,
        endpoint(server.url, retries=1, timeout=0.5) as judge,
    ):
        assert verdict_of(COMPARISON, judge).letter == "A"


@pytest.mark.parametrize(
    "bad",
    [
        Sent("{not json"),
        Sent(""),
        Sent("<html>Welcome</html>", headers={"Content-Type": "text/html"}),
        Sent("null"),
        Sent("[]"),
        Sent("{}"),
        Sent('{"choices": []}'),
        Sent('{"choices": [{"message": null}]}'),
        Sent('{"choices": "A"}'),
        says(None),
        says(["A"]),
    ],
    ids=lambda sent: sent.body[-60:],
)
def test_what_is_no_completion_is_asked_for_again_then_a_problem(bad: Sent) -> None:
    with serving(in_turn(bad)) as server, endpoint(server.url) as judge:
        with pytest.raises(BadReplyError):
            judge.ask(QUESTION)
        verdict = verdict_of(COMPARISON, judge)
        assert verdict.letter is None
        assert verdict.problem
        assert judge.requests == 3
    with serving(in_turn(bad, says("TIE"))) as server, endpoint(server.url) as judge:
        assert verdict_of(COMPARISON, judge).letter == "tie"


def test_nonsense_is_answered_with_a_reminder_once() -> None:
    answer = in_turn(says("Both have merits."), says("b"))
    with serving(answer) as server, endpoint(server.url) as judge:
        assert verdict_of(COMPARISON, judge).letter == "B"
        first, second = (body["messages"] for body in server.bodies)
        assert second[:2] == first
        assert second[2] == {"role": "assistant", "content": "Both have merits."}
        assert second[3] == {"role": "user", "content": REMINDER}
    with serving(in_turn(says("Both have merits."))) as server, endpoint(server.url) as judge:
        verdict = verdict_of(COMPARISON, judge)
        assert verdict.letter is None
        assert verdict.problem == "no verdict in the reply 'Both have merits.'"
        assert len(server.bodies) == 2


def test_a_reply_that_is_cut_off_is_no_verdict() -> None:
    cut = says("One could say A", "length")
    with serving(in_turn(says("A", "length"), cut)) as server, endpoint(server.url) as judge:
        verdict = verdict_of(COMPARISON, judge)
        assert (verdict.letter, verdict.problem) == (None, "cut off: the reply 'One could say A'")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_stops_at_once(status: int) -> None:
    answer = in_turn(refuses(status, f"no access with {KEY}"))
    with serving(answer) as server, endpoint(server.url) as judge:
        with pytest.raises(JudgeError, match=r"refuses the key in OPENAI_API_KEY or the model"):
            judge.ask(QUESTION)
        assert judge.requests == 1


def test_nobody_there_is_said_with_the_place() -> None:
    with serving(in_turn(says("A"))) as server:
        url = server.url
    place = url.removesuffix("/v1")
    with endpoint(url, retries=0) as judge, pytest.raises(JudgeError, match=place):
        judge.ask(QUESTION)


def test_no_request_is_sent_beyond_the_budget() -> None:
    always = in_turn(refuses(500, **SOON))
    with serving(always) as server, endpoint(server.url, retries=5, max_requests=3) as judge:
        with pytest.raises(JudgeBudgetError, match="budget of 3 requests is spent"):
            judge.ask(QUESTION)
        with pytest.raises(JudgeBudgetError):
            judge.ask(QUESTION)
        assert judge.requests == len(server.bodies) == 3


def test_the_key_is_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    for status in (400, 401, 404, 500):
        for body in (refuses(status, f"bad key {KEY}", **SOON), Sent(KEY, status)):
            with serving(in_turn(body)) as server, endpoint(server.url, retries=0) as judge:
                with pytest.raises(RuntimeError) as error:
                    judge.ask(QUESTION)
                assert error.value.__suppress_context__
                said += [str(error.value), repr(judge)]
    with serving(in_turn(says(f"Your key is {KEY}"))) as server, endpoint(server.url) as judge:
        said += [judge.ask(QUESTION).text, str(verdict_of(COMPARISON, judge))]
        assert server.keys[0] == KEY
    assert any("[key]" in text for text in said)
    assert KEY not in " ".join([*said, caplog.text])


def test_a_missing_key_is_named_where_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(JudgeError, match=r"https://judge\.example needs a key: .* JUDGE_KEY"):
        Endpoint(settings("https://judge.example/v1", key_variable="JUDGE_KEY"))
    with serving(in_turn(says("A"))) as server, endpoint(server.url) as judge:
        assert judge.ask(QUESTION).text == "A"  # a server on this machine needs none


@pytest.mark.parametrize("bad", ["sk one", "sk-\nx", "schlüssel"])
def test_what_cannot_be_a_key_is_refused_unquoted(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    with pytest.raises(JudgeError, match="OPENAI_API_KEY holds no key") as error:
        Endpoint(settings("https://judge.example/v1"))
    assert bad not in str(error.value)


def test_a_proxy_of_the_environment_does_not_stand_before_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(in_turn(says("A"))) as server, endpoint(server.url) as judge:
        assert judge.ask(QUESTION).text == "A"


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "127.0.0.1:8000/v1"},
        {"base_url": "ftp://127.0.0.1/v1"},
        {"base_url": f"https://user:{KEY}@judge.example/v1"},
        {"base_url": f"https://judge.example/v1?key={KEY}"},
        {"model": None},
        {"first": "rule", "second": "rule"},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="JudgeSettings"):
        settings(**{"url": "http://127.0.0.1/v1", **wrong})
