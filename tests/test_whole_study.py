"""A study with every part: several pools, and points of several experiments."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from im_assets.rule.document import load_rule
from im_resources.adapter_store import AdapterStore
from im_resources.study import DataSettings, load_study
from tests.study import Platform, copied, write_data


@pytest.fixture
def platform(whole_study: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """The finished study, to look at."""
    home, profile = whole_study
    monkeypatch.setenv("IM_HOME", str(home))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(profile, instance)


@pytest.fixture
def own(
    whole_study: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """A copy of it, to do something to."""
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(copied(whole_study, tmp_path / "home"), instance)


# -- several pools ------------------------------------------------------------------------------


def test_a_single_pool_is_called_dolly_whether_named_or_not(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    single = DataSettings.model_validate(data)
    named = DataSettings.model_validate(data | {"unseen": {"dolly": data["unseen"]}})
    assert single == named
    assert list(single.unseen) == ["dolly"]
    assert load_study("demo").pools == ("dolly",)


def test_each_pool_has_its_assets_and_its_checks(platform: Platform) -> None:
    graph = platform.definitions.resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    for pool in ("dolly", "mine"):
        assert {f"{pool}_{k}" for k in ("dataset", "scores", "indicators", "selection")} <= names
        [leaks] = [
            k for k in graph.asset_check_keys if k.asset_key == dg.AssetKey(f"{pool}_dataset")
        ]
        assert graph.get(leaks).blocking
        parents = {
            k.to_user_string() for k in graph.get(dg.AssetKey(f"{pool}_selection")).parent_keys
        }
        assert parents == {f"{pool}_dataset", f"{pool}_indicators", "quality_rule", "size_search"}
        assert (
            dg.AssetKey(f"{pool}_selection") in graph.get(dg.AssetKey("study_report")).parent_keys
        )
    assert "unseen_dataset" not in names


def test_each_pool_is_selected_from_into_its_own_file(platform: Platform) -> None:
    rule = load_rule(platform.table("quality_rule"))
    size = int(platform.table("size_search").query("chosen")["size"].iloc[0])
    chosen = {}
    for pool in ("dolly", "mine"):
        dataset, selection = (platform.table(f"{pool}_{kind}") for kind in ("dataset", "selection"))
        assert len(selection) == size
        assert set(selection["example_id"]) <= set(dataset["example_id"])
        assert set(selection["rule_id"]) == {rule.id}
        assert selection["predicted_log_loss"].is_monotonic_increasing
        scores = platform.table(f"{pool}_scores")
        wide = scores.pivot(index="example_id", columns="indicator", values="value")
        best = sorted(zip(rule.predict_examples(wide), wide.index, strict=True))[:size]
        assert selection["example_id"].tolist() == [example for _, example in best]
        path = platform.study.folder / f"{pool}_selection.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        chosen[pool] = [json.loads(line)["example_id"] for line in lines]
        assert chosen[pool] == selection["example_id"].tolist()
    assert not set(chosen["dolly"]) & set(chosen["mine"])
    assert not (platform.study.folder / "selection.jsonl").exists()


def test_the_report_shows_every_pool(platform: Platform) -> None:
    folder = platform.study.folder / "report"
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    text = json.dumps(document["sections"]["selection"])
    for pool in ("dolly", "mine"):
        assert f"examples selected of {pool}" in text
    page = (folder / "index.html").read_text(encoding="utf-8")
    first = platform.table("mine_selection")["output"].iloc[0]
    assert first.split(".")[0] in page
    assert "earlier rule" not in page


# -- points of several experiments --------------------------------------------------------------


def test_the_rule_is_fitted_on_the_points_that_the_profile_names(platform: Platform) -> None:
    points = platform.table("indicator_table")
    # The first validation came after the first rule, so that its points are of the next fit.
    assert points["experiment"].value_counts().to_dict() == {"mixtures": 6, "univariate": 4}
    rule = load_rule(platform.table("quality_rule"))
    assert rule.n == 10
    assert set(rule.loo_predictions) == set(points["partition"])
    evidence = platform.table("rule_evidence")
    left_out = evidence.loc[evidence["section"] == "leave_one_experiment_out", "item"]
    assert set(left_out) == {"mixtures", "univariate", "all"}


def test_every_point_is_a_trial_that_is_in_the_store(platform: Platform) -> None:
    store = AdapterStore(platform.study.folder / "adapters")
    for point in platform.table("indicator_table").to_dict("records"):
        manifest = store.there(point["trial_id"])
        assert manifest["set"] == point["set_id"]
        assert manifest["settings"] == point["settings_id"]
        assert manifest["base"] == point["base_id"]
        assert manifest["examples"] == point["n_examples"]


def test_measured_selections_are_points_of_the_next_fit(own: Platform) -> None:
    runs, before = own.table("validation_runs"), load_rule(own.table("quality_rule"))
    names = ("measured_selections", "indicator_table", "quality_rule")
    assert own.materialize(*names).success
    points = own.table("indicator_table")
    mine = points[points["experiment"] == "validation"]
    assert set(mine["partition"]) <= {f"{arm}@{before.id[:8]}" for arm in runs["arm"]}
    # Arms that are the same trial are one point.
    assert len(mine) == own.table("selection_adapters")["trial_id"].nunique()
    losses = runs.set_index(runs["arm"] + "@" + before.id[:8])["loss"]
    measured = mine.set_index("partition")["loss"]
    pd.testing.assert_series_equal(
        measured, losses[measured.index], check_names=False, check_dtype=False
    )
    assert load_rule(own.table("quality_rule")).n == 10 + len(mine)

    # What was selected by the earlier rule is told from what this one selects.
    result = own.materialize("validation_runs")
    [check] = [
        c for c in result.get_asset_check_evaluations() if c.check_name == "drawn_by_this_rule"
    ]
    assert not check.passed
    assert check.blocking
    assert "drawn by an earlier rule; materialize selection_samples" in str(check.description)
    assert own.materialize("study_report").success
    page = (own.study.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "belong to an earlier rule, not to the one above" in page
    assert "The selection of mine is of an earlier rule" in page

    # They stay, and are no points any more once finetunes are made in another way.
    own.change(finetuning={"learning_rate": 5e-3})
    assert own.materialize("measured_selections").success
    kept = own.table("measured_selections")
    assert set(mine["trial_id"]) <= set(kept["trial_id"])
    own.materialize("indicator_table")
    assert not len(own.table("indicator_table"))
