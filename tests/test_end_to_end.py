"""The demo as its user runs it, in small: the whole study in one run, twice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import yaml

from im_resources.study import PROFILES, PROJECT_ROOT
from tests.processes import Forked

pytestmark = pytest.mark.slow
SEEDS = 10
UNSEEN = 120  # rows of the unseen pool, of 220


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("end-to-end")


@pytest.fixture(scope="module")
def variables(home: Path) -> dict[str, str]:
    return {"IM_PROFILE": str(write_small_demo(home)), "IM_HOME": str(home)}


@pytest.fixture(scope="module")
def first_run(variables: dict[str, str]) -> str:
    """What the demo's own command prints."""
    result = subprocess.run(
        [sys.executable, "-m", "im_assets.run"],
        cwd=PROJECT_ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def write_small_demo(home: Path) -> Path:
    """The demo's profile with smaller sizes."""
    profile: dict[str, Any] = yaml.safe_load((PROFILES / "demo.yaml").read_text("utf-8"))
    profile["mixtures"] = {"seeds": SEEDS, "size": 8}
    profile["evaluation"] = {
        "max_instructions": 9, "max_outputs": 1, "max_output_tokens": 12, "take": "first",
    }  # fmt: skip
    profile["models"]["max_length"] = 40
    profile["data"]["unseen"] |= {"limit": UNSEEN, "take": "first"}
    profile["rule"] |= {"max_indicators": 2, "permutations": 60, "bootstrap": 30}
    # A rule of so few mixtures may be one of chance, and is used all the same.
    profile["selection"] = {"size": 40, "when_chance": "select"}
    profile["univariate"] = {"indicators": ["len_out"], "bins": 4, "size": 4}
    profile["validation"] |= {"sizes": [4], "seeds": 2, "random_seeds": 2}
    profile["judge"] = {"backend": "local", "instructions": 2, "answer_tokens": 8}
    path = home / "small.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return path


def table(home: Path, query: str) -> pd.DataFrame:
    with duckdb.connect(str(home / "demo" / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(query).df()


def test_the_study_runs_from_candidates_to_a_selection(first_run: str, home: Path) -> None:
    rows = table(home, "FROM indicator_table")
    assert len(rows) == SEEDS
    assert rows.notna().all().all()
    assert rows["log_loss"].nunique() == SEEDS
    rule = json.loads((home / "demo" / "quality_rule.json").read_text("utf-8"))["rule"]
    assert rule["coefficients"]
    lines = (home / "demo" / "selection.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 40
    assert {"instruction", "input", "output"} <= set(json.loads(lines[0]))
    printed = dict(line.split(maxsplit=1) for line in first_run.splitlines() if ":  " in line)
    for what, name in (("rule:", "quality_rule.json"), ("report:", "report/index.html")):
        assert Path(printed[what]) == home / "demo" / name
        assert Path(printed[what]).is_file()
    assert str(home / "demo" / "selection.jsonl") in first_run
    assert f"IM_PROFILE={home / 'small.yaml'} IM_HOME={home} make dev" in first_run
    assert (home / "demo" / "dagster" / "history" / "runs.db").is_file()


def test_good_data_has_lower_loss_than_curt_data(first_run: str, home: Path) -> None:
    shares = table(
        home,
        """SELECT seed, avg((source IN ('careful', 'howto'))::INT) AS good, any_value(loss) AS loss
        FROM mixed_samples JOIN indicator_table ON seed = partition GROUP BY seed""",
    )
    assert shares["good"].corr(shares["loss"], method="spearman") < -0.3


def test_the_selection_beats_random_on_the_hidden_grade(first_run: str, home: Path) -> None:
    rows = [
        json.loads(line)
        for line in (PROJECT_ROOT / "sample_data/unseen.jsonl").read_text("utf-8").splitlines()
    ][:UNSEEN]
    grade = {row["response"].strip(): row["grade"] for row in rows}
    good = table(home, "FROM dolly_selection")["output"].map(grade).eq("good")
    share = sum(g == "good" for g in grade.values()) / len(grade)
    # Two standard errors of a random subset of the same size above its expectation.
    assert good.mean() > share + 2 * (share * (1 - share) / len(good)) ** 0.5


def test_the_evidence_is_gathered(first_run: str, home: Path) -> None:
    bins = table(home, "FROM univariate_bins ORDER BY bin")
    assert bins["mean"].is_monotonic_decreasing
    assert bins["loss"].nunique() == 4
    assert len(table(home, "FROM univariate_study")) == 1
    rounds = table(home, "FROM mining_rounds ORDER BY round")
    assert list(rounds["sets"]) == [4, 4]
    assert (rounds["rmse"] > 0).all()
    assert list(rounds["points"]) == [SEEDS, SEEDS + 4]
    shapes = table(home, "FROM rule_evidence WHERE section = 'shape'")
    assert list(shapes["item"]) == ["line", "ridge", "additive"]
    verdicts = table(home, "FROM selection_validation WHERE against IS NULL OR against = 'random'")
    verdicts = verdicts.set_index("strategy")
    assert verdicts.loc["random", "verdict"] == "baseline"
    assert verdicts.loc["rule", "verdict"] in {"better", "worse", "not distinguishable"}
    runs = table(home, "FROM validation_runs WHERE arm LIKE 'rule-%'")
    assert verdicts.loc["rule", "loss"] == pytest.approx(runs["loss"].mean())
    assert (table(home, "FROM noise_floor WHERE source <> 'strategies'")["sd"] > 0).all()
    assert len(table(home, "FROM pairwise_judge")) == 4


def test_a_second_run_computes_nothing_again(
    first_run: str, home: Path, variables: dict[str, str]
) -> None:
    before = (home / "demo" / "quality_rule.json").read_bytes()
    adapters = {
        p: p.stat().st_mtime_ns for p in (home / "demo" / "adapters").rglob("*.safetensors")
    }
    scores = table(home, "SELECT count(*) AS n FROM score_cache")
    second = Forked("im_assets.run", log=home / "second.log", variables=variables)
    assert second.wait() == 0, (home / "second.log").read_text(encoding="utf-8")
    assert (home / "demo" / "quality_rule.json").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in adapters} == adapters
    assert table(home, "SELECT count(*) AS n FROM score_cache").equals(scores)
