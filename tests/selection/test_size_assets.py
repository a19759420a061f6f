"""The sizes of a searched selection: finetuned on once each, searched, and selected."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from im_assets.experiments.evaluation import evaluate_adapters, evaluation_rows, overall
from im_assets.experiments.lineage import set_id_of
from im_assets.rule.document import load_rule
from im_assets.selection.assets import definitions
from im_assets.selection.experiment import size_experiment
from im_assets.selection.size_search import measured_sizes, split_halves
from im_resources.adapter_store import AdapterStore
from im_resources.study import load_study
from tests.experiments.small_study import gpu
from tests.study import Platform, copied


@pytest.fixture
def platform(
    whole_study: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(copied(whole_study, tmp_path / "home"), instance)


def test_every_size_is_a_partition_with_the_strategys_selection_of_that_size(
    platform: Platform,
) -> None:
    study = platform.study
    sizes = measured_sizes(study.selection.search)
    assert len(sizes) == 2 * study.selection.search.trials - 1
    experiment = size_experiment(study)
    assert experiment.keys == tuple(f"size-{size}-seed-000" for size in sizes)
    scores = platform.table("dolly_scores")
    wide = scores.pivot(index="example_id", columns="indicator", values="value")
    rule = load_rule(platform.table("quality_rule"))
    ranked = [e for _, e in sorted(zip(rule.predict_examples(wide), wide.index, strict=True))]
    samples = platform.table("size_samples").sort_values("position")
    for size, key in zip(sizes, experiment.keys, strict=True):
        mine = samples[samples["size_key"] == key]
        assert mine["example_id"].tolist() == ranked[:size]
        assert set(mine["set_id"]) == {set_id_of(ranked[:size])}
    assert set(samples["rule_id"]) == {rule.id}


def test_the_size_is_searched_among_the_finetuned_ones(platform: Platform) -> None:
    study, trials = platform.study, platform.table("size_search")
    count = study.selection.search.trials
    assert list(trials["method"]) == ["blend_search"] * count + ["grid"] * count
    [chosen] = trials[trials["chosen"]].to_dict("records")
    assert chosen["method"] == "blend_search"
    searched = trials[trials["method"] == "blend_search"]
    assert chosen["search_loss"] == searched["search_loss"].min()
    assert set(trials["rule_id"]) == {load_rule(platform.table("quality_rule")).id}
    assert len(platform.table("dolly_selection")) == chosen["size"]

    # The losses are those of the adapters on disk, each half by itself.
    adapters = platform.table("size_adapters").set_index("size_key")
    folder = AdapterStore(study.folder / "adapters").folder(
        str(adapters.loc[f"size-{chosen['size']}-seed-000", "trial_id"])
    )
    rows = evaluation_rows(platform.table("eval_set"), study.evaluation)
    [(_, losses)] = evaluate_adapters({"one": folder}, rows, study, gpu())
    for half, column in zip(
        split_halves(rows["eval_id"].tolist()), ("search_loss", "report_loss"), strict=True
    ):
        mine = losses[losses["eval_id"].isin(half)]
        assert chosen[column] == pytest.approx(overall(mine, "token"), rel=1e-5)


def test_a_second_run_trains_and_evaluates_nothing_and_changes_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("trained or evaluated again")

    monkeypatch.setattr("im_assets.experiments.finetuning.train_trials", must_not)
    monkeypatch.setattr("im_assets.experiments.evaluation.losses_of_trials", must_not)
    names = ("size_search", "dolly_selection")
    before = {name: platform.table(name) for name in names}
    assert platform.run("sizes").success
    for name, table in before.items():
        pd.testing.assert_frame_equal(platform.table(name), table)


def test_sizes_that_were_never_finetuned_are_told_and_not_searched(platform: Platform) -> None:
    platform.change(selection={"search": {"smallest": 3, "largest": 9, "trials": 3}})
    result = platform.materialize("size_search")
    assert not result.success
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "have not been drawn" in str(failure.step_failure_data.error)
    assert "materialize size_samples" in str(failure.step_failure_data.error)


def test_a_given_size_needs_no_search(platform: Platform) -> None:
    study = load_study("demo")
    given = study.selection.model_copy(update={"size": 0.25})
    room = definitions(study.model_copy(update={"selection": given}))
    assets = [a for a in room.assets or () if isinstance(a, dg.AssetsDefinition)]
    assert [a.key.to_user_string() for a in assets] == ["dolly_indicators", "dolly_selection"]
