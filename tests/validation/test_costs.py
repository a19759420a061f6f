"""What selections cost: hand-worked, and from what a real study has recorded."""

import json
from collections import Counter
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.scoring.registry import chosen
from im_assets.validation.costs import (
    Prices,
    Reads,
    break_even,
    passes_of,
    scoring_flop,
    selection_costs,
    trial_costs,
)
from im_assets.validation.figures import cost_figure
from im_resources.language_model.flops import Load, Shape, shape_of, training_flops
from im_resources.study import FinetuningSettings, load_study
from tests.study import Platform, write_profile

SHAPE = Shape({"layers.0.q_proj": (4, 4), "layers.0.down_proj": (8, 4)}, attention=4, head=40)


def test_the_models_that_indicators_share_are_passed_once() -> None:
    every = {i.name: i for i in chosen(load_study("demo").scoring)}
    assert passes_of([every["len_out"], every["mtld"]]) == Counter()
    assert passes_of([every[n] for n in ("ppl", "nat", "coh")]) == Counter(base=1)
    assert passes_of([every["knn_6"], every["reward"]]) == Counter(embedding=1)
    assert passes_of([every["len_out"]], embeds=True) == Counter(embedding=1)
    assert passes_of(list(every.values())) == Counter(base=1, embedding=1)
    assert scoring_flop(Counter(base=2, embedding=1), {"base": 10.0, "embedding": 3.0}) == 23
    assert np.isnan(scoring_flop(Counter(reward=1), {"reward": np.nan}))


def test_a_finetune_costs_what_its_own_examples_take() -> None:
    settings = FinetuningSettings(epochs=2, lora_rank=2, target_modules=("q_proj",))
    lengths = pd.DataFrame({"tokens": [10.0, 20.0, 5.0], "learned": [4.0, 5.0, 1.0]}, list("abc"))
    members = pd.DataFrame({"arm": ["x", "x", "y"], "example_id": ["a", "b", "c"]})
    adapters = pd.DataFrame({"arm": ["x", "y"], "tokens": [60, 10], "seconds": [3.0, 0.5]})
    found = trial_costs(adapters, members, lengths, "arm", SHAPE, settings)
    x = training_flops(SHAPE, Load.of_rows([10, 20], [4, 5]) * 2, settings)
    y = training_flops(SHAPE, Load.of_rows([5], [1]) * 2, settings)
    assert found["flop"].to_dict() == pytest.approx({"x": x, "y": y})
    assert found["seconds"].to_dict() == {"x": 3.0, "y": 0.5}
    own = FinetuningSettings(trainer="mine")
    assert trial_costs(adapters, members, lengths, "arm", SHAPE, own)["flop"].isna().all()


@given(
    fixed=st.floats(0, 1e15),
    training=st.floats(1, 1e12),
    each=st.floats(1, 1e9),
    share=st.floats(0, 2),
)
def test_from_the_break_even_size_on_mining_costs_less(
    fixed: float, training: float, each: float, share: float
) -> None:
    scoring = each * share
    size = break_even(fixed, training, each, scoring)
    if size is None:
        assert scoring >= each * (1 - 1e-12)
        return
    for pool in (size * 1.001, size * 0.999):
        cheaper = fixed + pool * scoring + training < pool * each
        assert cheaper == (pool > size)


def test_each_arm_bears_what_it_needs() -> None:
    runs = pd.DataFrame(
        [("r0", "random", 2.0), ("r1", "random", 2.2), ("s0", "rule", 1.9), ("p0", "ppl", 2.1)],
        columns=["arm", "strategy", "loss"],
    ).assign(kind="strategy", size=8)
    runs.loc[len(runs)] = ("n0", "random", 9.0, "noise", 8)
    trials = pd.DataFrame({"flop": 100.0, "seconds": [1.0, 3.0, 2.0, 2.0]}, runs["arm"][:4])
    prices = Prices(
        pool=50,
        each={"base": 250.0, "embedding": np.nan},
        rule=4000.0,
        rule_seconds=60.0,
        full=500.0,
    )
    reads = {
        "rule": Reads(Counter(base=1), rule=True, scores=True),
        "ppl": Reads(Counter(base=2), scores=True),
    }
    found = selection_costs(runs, trials, reads, prices, 2.5).set_index("strategy")
    assert list(found.index) == ["base", "random", "ppl", "rule"]
    assert found["total_flop"].tolist() == [0, 100, 600, 4350]
    assert found["loss"].tolist() == pytest.approx([2.5, 2.1, 2.1, 1.9])
    assert found["training_seconds"].tolist() == [0, 2, 2, 2]
    assert found["rule_seconds"].tolist() == [0, 0, 0, 60]
    assert found["selection_seconds"].isna().tolist() == [False, False, True, True]
    # Training costs 10 an example of the pool, scoring 5 by one pass: (4000 + 100) / 5.
    sizes = found["break_even_examples"]
    assert (sizes["rule"], sizes["random"]) == pytest.approx((820, 10))
    assert np.isnan(sizes["ppl"])
    assert "no less than training" in found["note"]["ppl"]
    unknown = {"rule": Reads(Counter(embedding=1), rule=True, scores=True)}
    found = selection_costs(runs, trials, unknown, prices, None).set_index("strategy")
    assert np.isnan(found["total_flop"]["rule"])
    assert np.isnan(found["break_even_examples"]["rule"])
    assert "the operations of embedding are not known" in found["note"]["rule"]


# -- a real study ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Platform:
    profile = write_profile(
        tmp_path_factory.mktemp("costs"),
        tiny_folder,
        "costs",
        mixtures={"size": 4},
        finetuning={"epochs": 2},
        validation={
            "sizes": [4], "seeds": 2, "deciles": 0, "noise_repeats": 2, "random_seeds": 2,
            "references": ["tokens", "full_pool", "base"],
            "strategies": {
                "random": "random", "rule": "rule",
                "surprising": {"strategy": "lowest", "options": {"indicator": "ppl"}},
            },
        },
    )  # fmt: skip
    made = Platform(profile, dg.DagsterInstance.ephemeral())
    made.run_all()
    return made


def test_what_was_computed_is_what_it_cost(platform: Platform) -> None:
    study, costs = platform.study, platform.table("selection_costs").set_index("strategy")
    shape = shape_of(study.models.needed("base"))
    adapters = platform.table("selection_adapters").set_index("arm")
    runs = platform.table("validation_runs")
    for name in costs.index.drop("base"):
        mine = runs[(runs["strategy"] == name) & runs["kind"].isin(["strategy", "reference"])]
        trained, flop = adapters.loc[mine["arm"]], costs["training_flop"][name]
        assert costs["training_seconds"][name] == pytest.approx(trained["seconds"].mean())
        # Every token goes through the layers forward and back; at most at every one, the next is
        # predicted; and attention and the adapter add a little.
        passes = 4 * shape.weights * trained["tokens"].mean()
        most = passes + 4 * shape.head * trained["tokens"].mean()
        assert passes < flop < 1.1 * most
        assert costs["loss"][name] == pytest.approx(mine["loss"].mean())
    assert costs["size"]["full_pool"] == 24
    assert (costs["selection_flop"][["random", "tokens", "full_pool"]] == 0).all()
    assert costs["rule_flop"].gt(0).to_dict() == {name: name == "rule" for name in costs.index}
    mined = platform.table("finetuned_adapters")["seconds"].sum()
    assert costs["rule_seconds"]["rule"] == pytest.approx(mined)
    assert costs["total_flop"]["base"] == costs["training_seconds"]["base"] == 0
    base = platform.table("base_losses")
    assert costs["loss"]["base"] == pytest.approx(base["nll"].sum() / base["tokens"].sum())
    # Perplexity is one pass over the pool, and a training several.
    epoch = costs["training_flop"]["full_pool"] / study.finetuning.epochs
    assert 0 < costs["scoring_flop"]["surprising"] < epoch


def test_each_strategy_is_set_against_each_reference(platform: Platform) -> None:
    verdicts = platform.table("selection_validation")
    compared = verdicts[verdicts["verdict"] != "baseline"]
    references = {"random", "tokens", "full_pool", "base"}
    for name in ("rule", "surprising"):
        against = set(compared.loc[compared["strategy"] == name, "against"])
        # The tokens are those of what the rule selects.
        assert against == (references if name == "rule" else references - {"tokens"})
    assert set(verdicts.loc[verdicts["verdict"] == "baseline", "strategy"]) == references
    means = verdicts.drop_duplicates("strategy").set_index("strategy")["loss"]
    expected = compared["strategy"].map(means) - compared["against"].map(means)
    assert compared["difference"].to_numpy() == pytest.approx(expected.to_numpy())


def test_references_are_no_part_of_the_noise_floor(platform: Platform) -> None:
    noise = platform.table("noise_floor")
    assert set(noise["size"]) == {4}
    assert noise["sd"].notna().all()


def test_random_subsets_of_as_many_tokens_hold_as_many(platform: Platform) -> None:
    members, adapters = platform.table("selection_samples"), platform.table("selection_adapters")
    trained = adapters.set_index("arm")["tokens"] / platform.study.finetuning.epochs
    for seed in ("seed-000", "seed-001"):
        matched, selected = f"tokens-4-{seed}", f"rule-4-{seed}"
        assert set(members.loc[members["arm"] == matched, "example_id"])
        # No example of the pool has more than models.max_length tokens.
        assert abs(trained[matched] - trained[selected]) <= platform.study.models.max_length / 2
    assert (members["arm"] == "full_pool-0-seed-000").sum() == 24
    assert adapters.set_index("arm")["examples"]["full_pool-0-seed-001"] == 24


def test_the_report_says_what_it_cost(platform: Platform) -> None:
    report = json.loads((platform.study.folder / "report" / "report.json").read_text("utf-8"))
    section = report["sections"]["costs"]
    rows = {row["strategy"]: row for row in section["tables"]["costs"]["rows"]}
    assert set(rows) >= {"base", "random", "rule", "tokens", "full_pool"}
    assert any("costs" in text and "'rule' selects" in text for text in section["texts"])


def test_every_arm_that_costs_something_is_a_dot_with_its_name(platform: Platform) -> None:
    costs = platform.table("selection_costs")
    chart = cost_figure(costs)
    rows = [row for name, rows in chart["datasets"].items() if name != "reference" for row in rows]
    paid = costs[costs["total_flop"] > 0]
    assert [row["label"] for row in rows if row["label"].startswith("random")]
    assert sorted(row["x"] for row in rows) == pytest.approx(sorted(paid["total_flop"]))
    [base] = chart["datasets"]["reference"]
    assert base["value"] == pytest.approx(costs["loss"][costs["strategy"] == "base"].iloc[0])
