"""judge_rating through the scorer, the assets and the plan: asked once, never silent."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from im_assets.judging.ratings import CACHE
from im_assets.planning.counting import Counting
from im_assets.scoring.registry import BACKENDS, IndicatorError, chosen
from im_assets.scoring.scorer import score_missing
from im_resources.gpu import GpuResource
from im_resources.judge import JudgeBudgetError, JudgeError
from im_resources.study import PROJECT_ROOT, Study
from im_resources.warehouse import Warehouse
from tests.judging.endpoint_for_tests import (
    KEY,
    Sent,
    Server,
    in_turn,
    refuses,
    says,
    serving,
    settings,
)
from tests.scoring.demo_models import demo_study, models_of, sample
from tests.study import Platform, history, write_profile

EXAMPLES = sample("careful", 12)


def longer_is_better(body: dict[str, Any], number: int = 0) -> Sent:
    """A judge whose rating grows with the question."""
    return says(f"It is long.\n{rating_of(body['messages'][1]['content']):g}")


def rating_of(prompt: str) -> float:
    return 1 + len(prompt) % 9 / 2


def judged(server: Server, options: dict[str, Any] | None = None, **changes: Any) -> Study:
    """A study with a rating, and an indicator that is computed here."""
    rating = {"backend": "judge_rating", "options": options or {}}
    study = demo_study({"rating": rating, "mtld": "mtld"}, chunk=5)
    return study.model_copy(update={"judge": settings(server.url, retries=0, **changes)})


def scored(study: Study, warehouse: Warehouse) -> dict[str, float]:
    """The ratings by example_id."""
    found, _ = score_missing(EXAMPLES, chosen(study.scoring), models_of(study), warehouse)
    assert found["indicator"].value_counts().to_dict() == {"rating": 12, "mtld": 12}
    mine = found[found["indicator"] == "rating"]
    return {str(k): float(v) for k, v in zip(mine["example_id"], mine["value"], strict=True)}


def prompts(server: Server) -> list[str]:
    return [body["messages"][1]["content"] for body in server.bodies]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "scores.duckdb")


def test_every_example_gets_its_own_rating_once(warehouse: Warehouse) -> None:
    with serving(longer_is_better) as server:
        found = scored(judged(server), warehouse)
        own = {p: rating_of(p) for p in prompts(server)}
        for example_id, output in zip(EXAMPLES["example_id"], EXAMPLES["output"], strict=True):
            [mine] = [rating for prompt, rating in own.items() if output in prompt]
            assert found[example_id] == mine
        assert scored(judged(server), warehouse) == found
        assert len(server.bodies) == 12
        # Another option is another score, and needs no request: the ratings are kept.
        assert scored(judged(server, {"unrated": 2}), warehouse) == found
        assert len(server.bodies) == 12
        scored(judged(server, model="another"), warehouse)
        assert len(server.bodies) == 24


def test_a_spent_budget_keeps_ratings_and_other_scores_and_goes_on(warehouse: Warehouse) -> None:
    with serving(longer_is_better) as server:
        study = judged(server, max_requests=7)
        with pytest.raises(JudgeBudgetError, match="7 of 12 ratings are there and are kept"):
            scored(study, warehouse)
        kept = warehouse.read_table("score_cache")
        assert kept["indicator"].value_counts().to_dict() == {"mtld": 12}
        assert len(warehouse.read_table(CACHE)) == 7
        scored(study, warehouse)
        assert len(server.bodies) == len(set(prompts(server))) == 12


def test_progress_counts_a_rated_example_twice(warehouse: Warehouse) -> None:
    with serving(longer_is_better) as server:
        study, seen = judged(server), list[tuple[int, int]]()
        score_missing(
            EXAMPLES,
            chosen(study.scoring),
            models_of(study),
            warehouse,
            lambda done, todo: seen.append((done, todo)),
        )
    assert seen == [(n, 24) for n in (5, 10, 12, *range(13, 25))]


def test_examples_without_a_rating_are_named_and_the_others_kept(warehouse: Warehouse) -> None:
    broken = True

    def moody(body: dict[str, Any], number: int) -> Sent:
        prompt = body["messages"][1]["content"]
        if broken and any(output in prompt for output in EXAMPLES["output"][:5]):
            return says("Ignore the format: 100 points")
        return longer_is_better(body)

    with serving(moody) as server:
        message = (
            r"5 of 12 examples got no rating; careful-\d: no rating in the reply 'Ignore the "
            r"format: 100 points'; .*; careful-\d: [^;]* …\. The other ratings are kept.*`unrated`"
        )
        with pytest.raises(IndicatorError, match=message):
            scored(judged(server), warehouse)
        assert len(warehouse.read_table(CACHE)) == 7
        study = judged(server, {"unrated": 1.5})
        counted = scored(study, warehouse)
        told = chosen(study.scoring)[0].backend.told
        assert told is not None
        said = told(EXAMPLES["example_id"], models_of(study), warehouse, unrated=1.5)
        assert said == {"examples without a rating": 5, "each counts as": 1.5}
        assert told(EXAMPLES["example_id"][8:], models_of(study), warehouse, unrated=1.5) == {}
        assert told(EXAMPLES["example_id"], models_of(study), warehouse) == {}
        assert {counted[f"careful-{i}"] for i in range(5)} == {1.5}
        broken = False
        # Without the option they are asked about again, and with it they keep what they got.
        right = scored(judged(server), warehouse)
        assert scored(study, warehouse) == counted
        assert {e for e in right if right[e] != counted[e]} <= {f"careful-{i}" for i in range(5)}


def test_a_judge_that_cannot_be_asked_is_told_without_its_key(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for sent in (refuses(401, f"wrong: {KEY}"), refuses(400, KEY), says(f"the key is {KEY}")):
        with serving(in_turn(sent)) as server:
            with pytest.raises((JudgeError, IndicatorError)) as failed:
                scored(judged(server), warehouse)
            assert KEY not in str(failed.value)
            assert server.keys[0] == KEY
    stored = "".join(warehouse.read_table("score_cache").astype(str).to_numpy().ravel())
    assert KEY not in stored


KILLED = """
import sys
from pathlib import Path
from im_resources.warehouse import Warehouse
from tests.judging.endpoint_for_tests import Server
from tests.scoring.test_judge_rating import judged, scored

scored(judged(Server(sys.argv[1])), Warehouse(Path(sys.argv[2])))
"""


def test_a_killed_run_asks_again_only_for_what_was_under_way(warehouse: Warehouse) -> None:
    def slow(body: dict[str, Any], number: int) -> Sent:
        sent = longer_is_better(body)
        sent.delay = 0.3
        return sent

    with serving(slow) as server:
        command = [sys.executable, "-c", KILLED, server.url, str(warehouse.path)]
        with subprocess.Popen(command, cwd=PROJECT_ROOT) as child:
            deadline = time.monotonic() + 120
            try:
                while not warehouse.has_table(CACHE):
                    assert child.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            finally:
                child.kill()
        kept = set(warehouse.read_table(CACHE)["example_id"])
        assert 0 < len(kept) < 12
        before = len(server.bodies)
        scored(judged(server), warehouse)
        assert len(server.bodies) - before == 12 - len(kept)


@pytest.mark.parametrize("option", [0, 5.5, "three"])
def test_what_an_unrated_example_counts_as_is_on_the_scale(option: Any) -> None:
    with serving(longer_is_better) as server, pytest.raises(IndicatorError, match="unrated"):
        chosen(judged(server, {"unrated": option}).scoring)


@pytest.fixture
def make_platform(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    with history(tmp_path / "history") as instance:

        def made(judge: dict[str, Any] | None, **options: Any) -> Platform:
            rating = {"backend": "judge_rating", "options": options}
            profile = write_profile(
                tmp_path,
                tiny_folder,
                scoring={"indicators": {"len_out": "response_length", "rating": rating}},
                judge=judge,
            )
            return Platform(profile, instance)

        yield made


def test_without_a_judge_the_profile_is_refused(make_platform: Any) -> None:
    with pytest.raises(IndicatorError, match=r"scoring\.indicators\.rating: .* no `judge` block"):
        _ = make_platform(None).definitions


def test_a_judge_that_nobody_asks_is_refused(make_platform: Any) -> None:
    platform = make_platform({"backend": "local"})
    platform.change(scoring={"indicators": {"len_out": "response_length"}})
    with pytest.raises(JudgeError, match="nobody asks it"):
        _ = platform.definitions


def ratings_planned(platform: Platform) -> dict[str, tuple[int | None, int | None, str]]:
    work = Counting(platform.study, platform.warehouse, GpuResource(), {}).work()
    return {w.asset: (w.total, w.left, w.note) for w in work if w.unit == "ratings"}


def test_the_assets_the_plan_and_the_catalog_know_of_the_judge(make_platform: Any) -> None:
    def moody(body: dict[str, Any], number: int) -> Sent:
        weather = "It rains. Number 3." in body["messages"][1]["content"]
        return says("What weather!") if weather else longer_is_better(body)

    with serving(moody) as server:
        judge = {"backend": "openai", "base_url": server.url, "model": "m", "max_requests": 31}
        platform = make_platform(judge, unrated=2)
        assert ratings_planned(platform) == {
            "example_scores": (None, None, ""), "dolly_scores": (None, None, "")
        }  # fmt: skip
        assert platform.run("data").success
        over = "judge.max_requests is 29: the step stops there, and goes on when run again"
        assert ratings_planned(platform) == {
            "example_scores": (30, 30, ""), "dolly_scores": (24, 24, "")
        }  # fmt: skip
        platform.change(judge={"max_requests": 29})
        assert ratings_planned(platform)["example_scores"] == (30, 30, over)
        assert not platform.materialize("example_scores").success
        # The one without a rating took two of the requests, where it came before the end.
        left = 30 - len(platform.table(CACHE))
        assert ratings_planned(platform)["example_scores"] == (30, left, "")
        result = platform.materialize("example_scores", "dolly_scores")
        assert result.success
        [event] = result.asset_materializations_for_node("example_scores")
        assert event.metadata["rating: examples without a rating"].value == 1
        assert event.metadata["rating: each counts as"].value == 2
        [pool] = result.asset_materializations_for_node("dolly_scores")
        assert "rating: examples without a rating" not in pool.metadata
        warnings = [e.message for e in result.all_events if e.message] + [
            entry.user_message
            for entry in platform.instance.all_logs(result.run_id)
            if entry.level == 30
        ]
        assert "rating: examples without a rating: 1; rating: each counts as: 2" in warnings
        assert {work[1] for work in ratings_planned(platform).values()} == {0}
        assert "example_scores" not in platform.stale()
        platform.change(judge={"max_requests": 1000, "timeout": 9})
        assert "example_scores" not in platform.stale()
        platform.change(judge={"model": "another"})
        assert "example_scores" in platform.stale()
        assert ratings_planned(platform)["example_scores"] == (30, 30, "")


def test_it_is_in_the_registry_as_the_docs_say() -> None:
    backend = BACKENDS.all()["judge_rating"]
    assert (backend.uses, backend.text, backend.whole) == (("judge",), "conversation", True)


def test_definitions_of_a_local_judge_load(make_platform: Any) -> None:
    platform = make_platform({"backend": "local"})
    assert isinstance(platform.definitions, dg.Definitions)
    assert platform.run("data").success
    assert platform.materialize("example_scores").success
    scores = platform.table("example_scores")
    ratings = scores.loc[scores["indicator"] == "rating", "value"]
    assert len(ratings) == 30
    assert ratings.between(1, 5).all()
