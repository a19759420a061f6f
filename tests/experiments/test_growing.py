"""Data that grows: what was paid for stays, what is new is learned, what was withdrawn is gone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_assets.common.progress import Progress
from tests.study import Platform, copied, valleys, write_profile

NEW = 2
PAID = [f"seed-{seed:03d}" for seed in range(8)]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[Path, Path]]:
    """The home and the profile of a study that has run."""
    home = tmp_path_factory.mktemp("growing")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        profile = write_profile(home, tiny_folder, refit={"new_seeds": NEW})
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


def rows_of(platform: Platform, source: str) -> tuple[Path, list[dict[str, str]]]:
    path = Path(str(platform.study.data.candidates[source].path))
    return path, [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def add(platform: Platform, count: int = 6) -> None:
    path, rows = rows_of(platform, "food")
    write(path, rows + valleys(count))


def trained_now(result: dg.ExecuteInProcessResult) -> set[str]:
    """The partitions that were finetuned on in a run."""
    events = result.asset_materializations_for_node("finetuned_adapters")
    return {
        str(event.partition)
        for event in events
        if event.metadata["trained in this run"].value is True
    }


def tables(platform: Platform, *names: str) -> dict[str, pd.DataFrame]:
    return {name: platform.table(name) for name in names}


def test_without_new_data_everything_stays(platform: Platform) -> None:
    before = tables(platform, "mixture_seeds", "mixed_samples", "quality_rule")
    result = platform.run_study()
    assert result.success
    assert trained_now(result) == set()
    for name, was in before.items():
        pd.testing.assert_frame_equal(platform.table(name), was)


def test_new_rows_are_learned_and_what_was_paid_for_stays(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Progress] = []

    class Remembered(Progress):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            told.append(self)

    monkeypatch.setattr("im_assets.experiments.assets.trials.Progress", Remembered)
    before = tables(platform, "mixed_samples", "finetuned_adapters", "eval_losses")
    scored = len(platform.warehouse.read_table("score_cache"))
    add(platform)
    result = platform.run_study()
    assert result.success
    seeds = platform.table("mixture_seeds")
    new = set(seeds.loc[seeds["refit"], "seed"])
    assert len(new) == NEW
    assert trained_now(result) == new
    assert {p.label: p.total for p in told} == {"finetuning": NEW, "evaluating": NEW}
    drawn = result.asset_materializations_for_node("finetuned_adapters")
    assert {event.partition for event in drawn if "loss curve" in event.metadata} == new
    for name, was in before.items():
        now = platform.table(name)
        old = now[now["seed"].isin(PAID)].reset_index(drop=True)
        columns = [c for c in was.columns if c != "folder"]  # which is in this test's own copy
        pd.testing.assert_frame_equal(old[columns], was[columns])
    # Six new rows, three indicators each; nothing else was scored.
    assert len(platform.warehouse.read_table("score_cache")) == scored + 6 * 3
    points = platform.table("indicator_table")
    assert set(points["partition"]) == {*PAID, *new}
    assert set(platform.table("quality_rule")["n"]) == {len(PAID) + NEW}
    pool = platform.table("candidate_datasets")
    assert pool["since_version"].value_counts().to_dict() == {1: 30, 2: 6}
    assert platform.stale() == set()


def test_withdrawn_rows_retire_their_mixtures(platform: Platform) -> None:
    path, rows = rows_of(platform, "capitals")
    pool = platform.table("candidate_datasets")
    gone = pool.loc[(pool["source"] == "capitals") & (pool["line"] == 3), "example_id"].iloc[0]
    samples = platform.table("mixed_samples")
    hit = set(samples.loc[samples["example_id"] == gone, "seed"])
    assert hit
    assert hit != set(PAID)
    del rows[2]
    write(path, rows)
    result = platform.run_study()
    assert result.success
    seeds = platform.table("mixture_seeds")
    assert set(seeds.loc[seeds["retired"], "seed"]) == hit
    points = platform.table("indicator_table")
    assert set(PAID) - set(points["partition"]) == hit
    assert gone not in set(platform.table("candidate_datasets")["example_id"])
    assert set(platform.instance.get_dynamic_partitions("mixture_seeds")) == set(
        points["partition"]
    )


def test_a_version_alone_makes_no_rule_without_its_mixtures(platform: Platform) -> None:
    """The new seeds are there, and not finetuned on: no rule is made of the others meanwhile."""
    add(platform)
    assert platform.run("data").success
    result = platform.materialize("indicator_table", "quality_rule")
    made = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()
            if e.asset_key}  # fmt: skip
    assert "quality_rule" not in made
    [check] = [
        c for c in result.get_asset_check_evaluations() if c.check_name == "mixtures_parts_agree"
    ]
    assert not check.passed
    assert f"{NEW} of {len(PAID) + NEW} have not been drawn" in str(check.description)


def test_a_seed_is_drawn_again_from_its_own_version(platform: Platform) -> None:
    before = platform.table("mixed_samples")
    add(platform)
    assert platform.run("data").success
    assert platform.materialize("mixed_samples", keys=PAID).success
    pd.testing.assert_frame_equal(platform.table("mixed_samples"), before)


def test_a_withdrawn_example_is_gone_and_its_mixtures_retired(platform: Platform) -> None:
    gone, hit = _withdraw(platform, forget=False)
    assert platform.run_study().success
    seeds = platform.table("mixture_seeds")
    assert set(seeds.loc[seeds["retired"], "seed"]) == hit
    assert gone not in set(platform.table("candidate_datasets")["example_id"])
    [row] = platform.warehouse.read_table(
        "quarantined_examples", where={"kind": "withdrawn"}
    ).to_dict("records")
    assert row["excerpt"] == ""
    assert gone in row["reason"]


def test_a_forgotten_example_leaves_no_trace_but_its_id(platform: Platform) -> None:
    for source in platform.study.data.candidates:
        path, rows = rows_of(platform, source)
        write(path, [{"id": f"person-{source}-{i}.", **row} for i, row in enumerate(rows)])
    assert platform.run("data").success
    pool = platform.table("candidate_datasets")
    gone, hit = _withdraw(platform, forget=True)
    [[text, own_id]] = pool.loc[pool["example_id"] == gone, ["output", "own_id"]].to_numpy()
    assert own_id.encode() in platform.study.warehouse.read_bytes()
    adapters = platform.table("finetuned_adapters").set_index("seed")["trial_id"]
    assert platform.run("data").success
    store = platform.study.folder / "adapters"
    for seed, trial in adapters.items():
        assert (store / trial).exists() == (seed not in hit)
    for name in platform.warehouse.query("SELECT table_name FROM duckdb_tables()")["table_name"]:
        if name == "candidate_history":
            continue
        held = platform.table(name)
        assert not held.astype(str).isin([gone, text, own_id]).any().any(), name
    assert text.encode() not in platform.study.warehouse.read_bytes()
    assert own_id.encode() not in platform.study.warehouse.read_bytes()
    assert not (platform.study.folder / "selection.jsonl").exists()  # made again by the next run
    assert platform.run("study").success
    seeds = platform.table("mixture_seeds")
    assert set(seeds.loc[seeds["retired"], "seed"]) == hit
    assert not set(platform.table("indicator_table")["partition"]) & hit
    # The rule is one on the others, and the next run brings nothing back.
    assert platform.run_study().success
    seeds = platform.table("mixture_seeds")
    assert set(seeds.loc[seeds["retired"], "seed"]) == hit


def _withdraw(platform: Platform, forget: bool) -> tuple[str, set[str]]:
    """Withdraw an example that some mixtures hold, and not all; it and these mixtures."""
    samples = platform.table("mixed_samples")
    seeds = samples.groupby("example_id")["seed"].agg(set)
    gone, hit = next((e, s) for e, s in seeds.items() if 0 < len(s) < len(PAID) - 4)
    path = platform.profile.parent / "gone.txt"
    path.write_text(f"# asked to be forgotten\n{gone}\n", encoding="utf-8")
    platform.change(data={"withdrawn": {"path": str(path), "forget": forget}})
    return str(gone), hit
