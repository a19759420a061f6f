"""A study of designed mixtures: drawn by scores, and the same whatever the pool becomes."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from im_assets.mixtures.leaning import PERCENTILES
from tests.study import Platform, copied, valleys, write_profile

NEW = 2
PAID = [f"seed-{seed:03d}" for seed in range(8)]
MIXTURES = {"kind": "designed", "candidate_seeds": 40, "tilt": ["len_out", "ppl"]}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[Path, Path]]:
    """The home and the profile of a study that has run."""
    home = tmp_path_factory.mktemp("designed")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        profile = write_profile(home, tiny_folder, refit={"new_seeds": NEW}, mixtures=MIXTURES)
        assert Platform(profile, instance).run_study().success
        yield home, profile


@pytest.fixture
def platform(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """The finished study, to do something to."""
    own = copied(finished, tmp_path / "home")
    monkeypatch.setenv("IM_HOME", str(own.parent))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(own, instance)


def change_rows(platform: Platform, source: str, add: int = 0, without: str = "") -> None:
    path = Path(str(platform.study.data.candidates[source].path))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["output"] != without] + valleys(add)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def trained_now(result: dg.ExecuteInProcessResult) -> set[str]:
    events = result.asset_materializations_for_node("finetuned_adapters")
    return {str(e.partition) for e in events if e.metadata["trained in this run"].value is True}


def test_its_seeds_are_chosen_and_told(platform: Platform) -> None:
    seeds = platform.table("mixture_seeds")
    assert list(seeds["seed"]) == PAID
    assert seeds["number"].is_unique
    assert list(seeds["number"]) != list(range(8))  # chosen among 48, not the first
    tilts = pd.DataFrame(list(map(json.loads, seeds["tilt"])))
    assert set(tilts.columns) == {"len_out", "ppl"}
    assert (np.linalg.norm(tilts, axis=1) <= 1.5).all()
    # They lean where they say: to longer responses, those with a positive tilt to these.
    points = platform.table("indicator_table").set_index("partition")["len_out"]
    ranks = spearmanr(points[PAID], tilts["len_out"]).statistic
    assert ranks > 0.3  # six of thirty examples can lean only so far
    kept = platform.warehouse.read_table(PERCENTILES)
    assert set(kept["indicator"]) == {"len_out", "ppl"}
    assert set(kept["pool_version"]) == {1}


def test_nothing_changes_without_new_data(platform: Platform) -> None:
    names = ("mixture_seeds", "mixed_samples", PERCENTILES, "quality_rule")
    before = {name: platform.table(name) for name in names}
    result = platform.run_study()
    assert trained_now(result) == set()
    for name, was in before.items():
        pd.testing.assert_frame_equal(platform.table(name), was)
    assert platform.stale() == set()


def test_new_rows_are_told_by_new_seeds_and_what_was_paid_for_stays(platform: Platform) -> None:
    before = platform.table("mixed_samples")
    change_rows(platform, "food", add=6)
    result = platform.run_study()
    assert result.success
    seeds = platform.table("mixture_seeds")
    new = set(seeds.loc[seeds["refit"], "seed"])
    assert len(new) == NEW
    assert trained_now(result) == new
    now = platform.table("mixed_samples")
    old = now[now["seed"].isin(PAID)].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, before)
    assert set(platform.warehouse.read_table(PERCENTILES)["pool_version"]) == {1, 2}
    assert platform.stale() == set()


def test_an_example_in_no_mixture_is_withdrawn_and_the_others_are_drawn_as_before(
    platform: Platform,
) -> None:
    samples, pool = platform.table("mixed_samples"), platform.table("candidate_datasets")
    free = pool[~pool["example_id"].isin(samples["example_id"])]
    if free.empty:
        pytest.fail("every example is in some mixture: the study is too small for this test")
    gone = free.iloc[0]
    change_rows(platform, gone["source"], without=gone["output"])
    result = platform.run_study()
    assert result.success
    assert trained_now(result) == set()
    assert not platform.table("mixture_seeds")["retired"].any()
    columns = [c for c in samples.columns if c != "version"]
    pd.testing.assert_frame_equal(platform.table("mixed_samples")[columns], samples[columns])


def test_another_strength_is_another_study(platform: Platform) -> None:
    assert platform.run_study().success
    assert platform.stale() == set()
    platform.change(mixtures={"strength": 0.5})
    assert {"mixed_samples", "finetuned_adapters"} <= platform.stale()
    result = platform.run_study()
    assert result.success
    assert trained_now(result)
    tilts = pd.DataFrame(list(map(json.loads, platform.table("mixture_seeds")["tilt"])))
    assert (np.linalg.norm(tilts, axis=1) <= 0.5).all()


def test_a_plan_knows_what_is_there(platform: Platform) -> None:
    result = platform.run("data")
    plan = result.output_for_node("study_plan").set_index("asset")
    for asset in ("example_scores", "finetuned_adapters", "eval_losses"):
        row = plan.loc[asset]
        assert row["total"] == row["there"]
