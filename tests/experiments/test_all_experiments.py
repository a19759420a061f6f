"""Every experiment, every kind of point and two pools in one study: each trial is paid for once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from im_assets.experiments.evaluation import overall
from tests.study import Platform, write_profile

BLOCKS: dict[str, Any] = {
    "mixtures": {"seeds": 6},
    "univariate": {"indicators": ["len_out"], "bins": 4, "size": 4},
    "validation": {
        "strategies": {"rule": "rule", "random": "random"},
        "sizes": [4],
        "seeds": 2,
        "random_seeds": 2,
        "noise_repeats": 2,
        "deciles": 0,
    },
    "rule": {"points": ["mixtures", "univariate", "validation"]},
    "selection": {"size": "searched", "search": {"smallest": 2, "largest": 12, "trials": 3}},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rounds(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[Platform, pd.DataFrame, pd.DataFrame]]:
    """The platform after two rounds, and the points of each."""
    home = tmp_path_factory.mktemp("all")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        platform = Platform(write_profile(home, tiny_folder, **BLOCKS), instance)
        data = platform.study.model_dump(mode="json", exclude_none=True)["data"]
        pools = {**data["unseen"], "mine": data["candidates"]["food"]}
        platform.change(data={"unseen": pools})
        platform.run_all()
        first = platform.table("indicator_table")
        platform.run_all()
        yield platform, first, platform.table("indicator_table")


def test_the_rule_is_fitted_on_the_points_of_the_named_experiments(
    rounds: tuple[Platform, pd.DataFrame, pd.DataFrame],
) -> None:
    platform, first, second = rounds
    assert first["experiment"].value_counts().to_dict() == {"mixtures": 6, "univariate": 4}
    # Selections come in once a rule has drawn them: the next rule is fitted on them too.
    counts = second["experiment"].value_counts().to_dict()
    assert counts == {"mixtures": 6, "univariate": 4, "validation": 5}
    assert second["trial_id"].is_unique
    assert platform.table("quality_rule")["n"].unique().tolist() == [15]
    left_out = platform.table("rule_evidence")
    groups = left_out.loc[left_out["section"] == "leave_one_experiment_out", "item"]
    assert {"mixtures", "univariate", "validation"} <= set(groups)


def test_a_point_is_its_sets_means_and_its_trials_loss(
    rounds: tuple[Platform, pd.DataFrame, pd.DataFrame],
) -> None:
    platform, _, points = rounds
    tables = {
        "mixtures": ("mixed_samples", "eval_losses", "seed", "example_scores"),
        "univariate": ("univariate_samples", "univariate_losses", "bin", "example_scores"),
    }
    for experiment, (samples_of, losses_of, column, scores_of) in tables.items():
        scores = platform.table(scores_of).pivot(
            index="example_id", columns="indicator", values="value"
        )
        samples, losses = platform.table(samples_of), platform.table(losses_of)
        for point in points[points["experiment"] == experiment].to_dict("records"):
            members = samples.loc[samples[column] == point["partition"], "example_id"]
            assert point["n_examples"] == len(members)
            for name in ("len_in", "len_out", "ppl"):
                assert point[name] == pytest.approx(scores.loc[members, name].mean(), rel=1e-12)
            loss = overall(losses[losses[column] == point["partition"]], "token")
            assert point["loss"] == pytest.approx(loss, rel=1e-12)
            assert point["log_loss"] == pytest.approx(np.log(loss), rel=1e-12)


def test_no_trial_was_trained_twice_and_all_lie_in_the_store(
    rounds: tuple[Platform, pd.DataFrame, pd.DataFrame],
) -> None:
    platform, *_ = rounds
    kinds = ("finetuned_adapters", "univariate_adapters", "selection_adapters", "size_adapters")
    trials = {trial for kind in kinds for trial in platform.table(kind)["trial_id"]}
    folders = {p.name for p in (platform.study.folder / "adapters").iterdir()}
    assert trials <= folders  # those of the first round's selections are there too
    # The selection of size 5 was measured as a size; a validation of that size would find it.
    cached = platform.table("eval_loss_cache").groupby("fingerprint").size()
    assert cached.nunique() == 1


def test_the_sizes_are_an_experiment_and_the_selection_takes_the_one_chosen(
    rounds: tuple[Platform, pd.DataFrame, pd.DataFrame],
) -> None:
    platform, *_ = rounds
    search = platform.table("size_search")
    losses = platform.table("size_losses")
    assert losses["size_key"].nunique() == 5
    assert set(search["size"]) <= {2, 3, 5, 8, 12}
    assert (search.groupby("method").size() == 3).all()
    [chosen] = search.loc[search["chosen"], "size"]
    blend = search[search["method"] == "blend_search"]
    assert chosen == blend.loc[blend["search_loss"].idxmin(), "size"]
    for pool in ("dolly", "mine"):
        assert len(platform.table(f"{pool}_selection")) == chosen


def test_each_pool_has_a_selection_of_its_own(
    rounds: tuple[Platform, pd.DataFrame, pd.DataFrame],
) -> None:
    platform, *_ = rounds
    for pool in ("dolly", "mine"):
        lines = (platform.study.folder / f"{pool}_selection.jsonl").read_text("utf-8").splitlines()
        table, held = platform.table(f"{pool}_selection"), platform.table(f"{pool}_dataset")
        assert len(lines) == len(table)
        assert set(table["example_id"]) <= set(held["example_id"])
        assert table["rule_id"].unique().tolist() == [platform.table("quality_rule")["rule_id"][0]]


def test_a_finished_study_is_fresh(
    rounds: tuple[Platform, pd.DataFrame, pd.DataFrame],
) -> None:
    assert rounds[0].stale() == set()
