"""A small study with rounds, through its jobs: tables, points, stops, plan, staleness."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from im_assets.planning.planning import plan_of
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from tests.study import Platform, copied, history, write_profile

ROUNDS, SEEDS = 6, 2  # of six the error does not fall each time
MINING: dict[str, Any] = {"rounds": ROUNDS, "seeds": SEEDS}
RULE = {
    "points": ["mixtures", "rounds"], "bootstrap": 10, "permutations": 19, "choose": "stepwise",
    "p_enter": 0.9, "p_remove": 0.95, "max_indicators": 2,
}  # fmt: skip
KINDS = ("samples", "adapters", "losses")


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[Path, Path]]:
    """The home, with its history, and the profile of a study that has run."""
    home = tmp_path_factory.mktemp("rounds")
    with pytest.MonkeyPatch.context() as patch, history(home / "history") as instance:
        patch.setenv("IM_HOME", str(home))
        profile = write_profile(home, tiny_folder, mining=MINING, rule=RULE)
        Platform(profile, instance).run_all()
        yield home, profile


@pytest.fixture
def platform(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """The finished study, to do something to."""
    own = copied(finished, tmp_path / "home")
    monkeypatch.setenv("IM_HOME", str(own.parent))
    with history(own.parent / "history") as instance:
        yield Platform(own, instance)


def made(platform: Platform) -> list[int]:
    table = platform.table("mining_rounds")
    return table.loc[~table["stopped"], "round"].tolist()


def errors(platform: Platform, number: int) -> pd.Series:
    """Measured less predicted log loss of a round's sets, from losses, scores and coefficients."""
    warehouse = platform.warehouse
    losses = warehouse.query(
        f"SELECT arm, ln(sum(nll) / sum(tokens)) AS y FROM round_{number}_losses GROUP BY arm"
    ).set_index("arm")["y"]
    means = warehouse.query(
        "SELECT arm, indicator, avg(sign(value) * ln(1 + abs(value))) AS x "
        f"FROM round_{number}_samples JOIN example_scores USING (example_id) GROUP BY ALL"
    ).pivot(index="arm", columns="indicator", values="x")
    terms = warehouse.read_table(f"round_{number}_rule").set_index("term")["estimate"]
    predicted = pd.Series(terms["constant"], index=means.index)
    for name in terms.index.drop("constant"):
        predicted += terms[name] * means[name]
    return losses - predicted


def rms(values: pd.Series) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_each_round_has_a_job_after_the_mixtures(platform: Platform) -> None:
    jobs = [job.name for job in platform.definitions.jobs or ()]
    numbers = range(1, ROUNDS + 1)
    assert jobs == ["data", "study", *(f"round_{n}" for n in numbers), "reporting"]
    last = platform.definitions.resolve_job_def(f"round_{ROUNDS}").asset_layer
    held = {key.to_user_string() for key in last.executable_asset_keys}
    assert {"mining_rounds", "indicator_table", "quality_rule", "dolly_selection"} <= held


def test_the_errors_are_those_of_the_tables(platform: Platform) -> None:
    table = platform.table("mining_rounds").set_index("round")
    rounds = made(platform)
    assert rounds[:2] == [1, 2]
    for number in rounds:
        found = errors(platform, number)
        assert len(found) == table["sets"][number] == 2 * SEEDS
        assert table["rmse"][number] == pytest.approx(rms(found), rel=1e-6)
        own = found[found.index.str.startswith("rule-")]
        assert table["rule_rmse"][number] == pytest.approx(rms(own), rel=1e-6)
        losses = platform.table("indicator_table").query(f"experiment == 'round_{number}'")
        by_arm = losses.groupby(losses["partition"].str.split("-").str[0])["loss"].mean()
        assert table["less_random"][number] == pytest.approx(by_arm["rule"] - by_arm["random"])
        assert table["less_random_low"][number] < table["less_random"][number]
    change = table["rmse"].diff()[rounds[1:]]
    assert table["change"][rounds[1:]].to_numpy() == pytest.approx(change.to_numpy())
    assert np.isnan(table["change"][1])
    assert set(table["verdict"][rounds[1:]]) <= {"fell", "did_not_fall", "cannot_tell"}


def test_every_rule_is_fitted_on_what_was_measured_before_it(platform: Platform) -> None:
    trials = {"mixtures": set(platform.table("finetuned_adapters")["trial_id"])}
    for number in made(platform):
        rule = platform.table(f"round_{number}_rule")
        document = json.loads(rule["document"].iloc[0])
        assert set(document["rule"]["trials"]) == set().union(*trials.values())
        samples = platform.table(f"round_{number}_samples")
        assert set(samples["rule_id"]) == set(rule["rule_id"])
        trials[f"round_{number}"] = set(platform.table(f"round_{number}_adapters")["trial_id"])
        following = platform.table(f"round_{number + 1}_rule")
        assert following["rmse_before"].iloc[0] == pytest.approx(rms(errors(platform, number)))
    assert len(set().union(*trials.values())) == sum(map(len, trials.values()))  # none twice
    assert platform.table("round_1_rule")["rmse_before"].isna().all()


def test_a_round_s_finetunes_select_from_parts_of_their_own(platform: Platform) -> None:
    pool = set(platform.table("candidate_datasets")["example_id"])
    for number in made(platform):
        samples = platform.table(f"round_{number}_samples")
        sets = samples.groupby("arm")["example_id"].agg(set)
        assert all(len(members) == 6 and members <= pool for members in sets)
        for name in ("rule", "random"):
            first, second = sets[sets.index.str.startswith(f"{name}-")]
            assert not first & second
    one, two = (platform.table(f"round_{n}_samples")["set_id"] for n in (1, 2))
    assert not set(one) & set(two)  # cut anew


def test_the_rounds_end_when_the_error_does_not_fall_and_nothing_fails(platform: Platform) -> None:
    table, rounds = platform.table("mining_rounds").set_index("round"), made(platform)
    assert 2 <= len(rounds) < ROUNDS  # else this test shows nothing
    rmse = table["rmse"]
    assert all(rmse[n] < rmse[n - 1] for n in rounds[1:-1])
    assert rmse[rounds[-1]] >= rmse[rounds[-1] - 1]
    assert table["stopped"].tolist() == [n > len(rounds) for n in range(1, ROUNDS + 1)]
    for number in range(len(rounds) + 1, ROUNDS + 1):
        for kind in KINDS:
            name = f"round_{number}_{kind}"
            assert platform.table(name).empty
            event = platform.instance.get_latest_materialization_event(dg.AssetKey(name))
            assert event is not None
            assert event.asset_materialization is not None
            why = str(event.asset_materialization.metadata["stopped"].value)
            assert why == table["why"][number]
        numbers = table.loc[[number], ["rmse", "rule_rmse", "change", "less_random"]]
        assert numbers.isna().all(axis=None)
    assert "is not below that of" in table["why"][len(rounds) + 1]
    assert f"ended before round {len(rounds) + 1}" in table["why"][ROUNDS]
    last = f"round_{ROUNDS}"
    checks = {
        f"{last}_adapters": "responses_are_whole",
        f"{last}_losses": f"{last}_losses_are_finite",
        f"{last}_samples": f"{last}_will_be_complete",
    }
    for asset, check in checks.items():
        key = dg.AssetCheckKey(dg.AssetKey(asset), check)
        log = platform.instance.event_log_storage
        (seen,) = log.get_asset_check_execution_history(key, limit=1)
        assert seen.evaluation is not None
        assert seen.evaluation.passed


def test_the_final_rule_is_fitted_on_the_rounds_too(platform: Platform) -> None:
    points = platform.table("indicator_table")
    counts = points["experiment"].value_counts().to_dict()
    assert counts == {"mixtures": 8} | {f"round_{n}": 2 * SEEDS for n in made(platform)}
    rule = platform.table("quality_rule")
    assert set(rule["n"]) == {len(points)}
    # The first round that is not made has the rule of all that was measured.
    following = platform.table(f"round_{len(made(platform)) + 1}_rule")
    assert set(rule["rule_id"]) == set(following["rule_id"])
    assert set(platform.table("dolly_selection")["rule_id"]) == set(rule["rule_id"])


def test_the_report_tells_of_the_rounds(platform: Platform) -> None:
    path = platform.study.folder / "report" / "report.json"
    section = json.loads(path.read_text(encoding="utf-8"))["sections"]["rounds"]
    rows = section["tables"]["mining_rounds"]["rows"]
    table = platform.table("mining_rounds")
    assert [row["round"] for row in rows] == table["round"].tolist()
    assert rows[0]["rmse"] == table["rmse"][0]
    assert rows[-1]["verdict"] == "not made"
    assert "was not made" in " ".join(section["texts"])
    assert "mining_rounds" in section["figures"]


def test_a_plan_counts_the_rounds_and_knows_when_they_ended(platform: Platform) -> None:
    study = platform.study
    store = AdapterStore(study.folder / "adapters")
    plan = plan_of(study, platform.warehouse, store, GpuResource())
    assert plan.nothing_left
    assert not [work.asset for work in plan.work if work.at_most]
    platform.change(mining={**MINING, "seeds": SEEDS + 1})
    plan = plan_of(platform.study, platform.warehouse, store, GpuResource())
    work = {work.asset: work for work in plan.work}
    assert (work["finetuned_adapters"].left, work["round_1_adapters"].left) == (0, 6)
    assert work["round_2_losses"].left == 6
    assert work["round_2_adapters"].at_most


def test_a_finished_study_is_fresh_and_other_mixtures_make_its_rounds_stale(
    platform: Platform,
) -> None:
    platform.change(mining={"rounds": 2})
    platform.run_all()  # where the copied files lie is new
    assert platform.stale() == set()
    platform.change(finetuning={"learning_rate": 1e-3})
    rounds = {f"round_{n}_{kind}" for n in (1, 2) for kind in ("rule", *KINDS)}
    assert platform.stale() >= {*rounds, "mining_rounds", "quality_rule", "eval_losses"}
    platform.change(finetuning={"learning_rate": 2e-3})
    assert platform.stale() == set()
    # The same settings, and other losses: as of an evaluation set with another instruction.
    data = Path(str(platform.study.data.evaluation and platform.study.data.evaluation.path))
    row = {"instruction": "What is new?", "outputs": ["Something else altogether is new here."]}
    data.write_text(data.read_text("utf-8") + json.dumps(row) + "\n", encoding="utf-8")
    assert platform.run_study().success  # with the rule of the first round
    stale = platform.stale()
    assert "round_1_rule" not in stale
    assert {"round_1_samples", "round_2_rule", "mining_rounds", "quality_rule"} <= stale


def test_sets_of_an_earlier_rule_are_no_test_of_this_one(platform: Platform) -> None:
    samples = platform.table("round_1_samples")
    platform.warehouse.replace_table("round_1_samples", samples.assign(rule_id="another"))
    result = platform.materialize("round_2_rule")
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "drawn by another rule than round_1_rule holds now" in str(failure.step_failure_data)


def test_a_missing_set_is_named_and_not_left_out(platform: Platform) -> None:
    losses, adapters = (platform.table(f"round_1_{kind}") for kind in ("losses", "adapters"))
    gone = adapters["arm"].iloc[0]
    warehouse = platform.warehouse
    warehouse.replace_table("round_1_losses", losses[losses["arm"] != gone])
    for name in ("round_2_rule", "mining_rounds"):
        result = platform.materialize(name)
        [failure] = result.filter_events(lambda event: event.is_step_failure)
        told = str(failure.step_failure_data)
        assert f"1 of 4 have no evaluation losses: {gone}; materialize round_1_losses" in told
    warehouse.replace_table("round_1_adapters", adapters[adapters["arm"] != gone])
    result = platform.materialize("round_1_losses")
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert f"round_1_adapters has no rows for {gone}" in str(failure.step_failure_data)


def test_a_pool_that_is_too_small_names_the_settings(platform: Platform) -> None:
    platform.change(mining={**MINING, "seeds": 6})
    result = platform.materialize("round_1_samples")
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    told = str(failure.step_failure_data)
    assert "mining.seeds (6) cuts its 30 examples into parts of 5, fewer than mixtures.size" in told


def test_a_rule_without_indicators_ends_the_rounds_before_the_first(platform: Platform) -> None:
    platform.change(rule={"p_enter": 1e-9, "p_remove": 1e-8})
    assert platform.materialize("round_1_rule").success
    assert "no indicator, so it selects nothing" in platform.table("round_1_rule")["why"].iloc[0]
    assert not platform.table("round_1_rule")["goes_on"].any()
    numbers = range(1, ROUNDS + 1)
    for number in numbers:
        if number > 1:
            assert platform.materialize(f"round_{number}_rule").success
        assert platform.materialize(*(f"round_{number}_{kind}" for kind in KINDS)).success
    assert platform.materialize("mining_rounds").success
    table = platform.table("mining_rounds")
    assert table["stopped"].all()
    assert table["rmse"].isna().all()
    assert all(platform.table(f"round_{n}_losses").empty for n in numbers)
    assert platform.warehouse.query("SELECT * FROM token_cuts WHERE asset LIKE 'round_%'").empty


def test_with_one_finetune_each_nothing_is_told_of_chance(platform: Platform) -> None:
    platform.change(mining={"rounds": 2, "seeds": 1})
    assert all(platform.run(job).success for job in ("round_1", "round_2"))
    table = platform.table("mining_rounds")
    assert table["sets"].tolist() == [2, 2]
    assert table[["rmse", "rule_rmse", "less_random"]].notna().all(axis=None)
    ends = [
        f"{name}_{end}" for name in ("rmse", "change", "less_random") for end in ("low", "high")
    ]
    assert table[ends].isna().all(axis=None)
    assert table["verdict"].tolist()[1] == "cannot_tell"
    platform.change(mining={"strategies": {"rule": "rule"}})
    assert all(platform.run(job).success for job in ("round_1", "round_2"))
    table = platform.table("mining_rounds")
    assert (table["rmse"] == table["rule_rmse"]).all()
    assert table["less_random"].isna().all()  # there is no random set to compare with
