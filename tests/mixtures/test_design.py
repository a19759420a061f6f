from itertools import combinations

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml

from im_assets.mixtures.assets import seed_design
from im_assets.mixtures.design import (
    d_optimal,
    expected_indicators,
    information,
    principal_directions,
)
from im_assets.mixtures.drawing import MixtureError, draw_mixture
from im_resources.study import MixtureSettings, Study


def determinant(vectors: np.ndarray) -> float:
    x = np.column_stack([np.ones(len(vectors)), vectors])
    return float(np.linalg.det(x.T @ x))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rows", "directions", "size"), [(11, 2, 4), (10, 3, 6), (9, 1, 3)])
def test_no_choice_is_better_than_the_exchange_s(
    seed: int, rows: int, directions: int, size: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(rows, directions))
    chosen = d_optimal(vectors, size, seed=0)
    best = max(determinant(vectors[list(c)]) for c in combinations(range(rows), size))
    assert determinant(vectors[chosen]) == pytest.approx(best)
    assert list(chosen) == sorted(set(chosen))


def test_a_line_is_measured_at_its_ends() -> None:
    # The textbook answer for a straight line: half of the points at each end.
    vectors = np.linspace(-1, 1, 21)[:, None]
    assert list(d_optimal(vectors, 6, seed=3)) == [0, 1, 2, 18, 19, 20]


def test_what_is_measured_already_counts() -> None:
    vectors = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1], [0.9, 0.1], [-0.9, -0.1]])
    measured = np.array([[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert list(d_optimal(vectors, 2, seed=0, measured=measured)) == [2, 3]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        vectors, measured = rng.normal(size=(9, 2)), rng.normal(size=(3, 2))
        chosen = d_optimal(vectors, 3, seed=0, measured=measured)
        best = max(
            determinant(np.vstack([measured, vectors[list(c)]])) for c in combinations(range(9), 3)
        )
        assert determinant(np.vstack([measured, vectors[chosen]])) == pytest.approx(best)


def test_units_do_not_change_the_design_and_bad_sizes_are_refused() -> None:
    vectors = np.random.default_rng(1).normal(size=(20, 3))
    mixed = vectors @ np.array([[1e4, 0.2, 0], [0, 1, 0], [0, 0, 1e-5]]) + [1e6, 0, 3]
    assert list(d_optimal(vectors, 8, seed=0)) == list(d_optimal(mixed, 8, seed=0))
    assert len(d_optimal(vectors, 20, seed=0)) == 20
    with pytest.raises(ValueError, match="21 mixtures cannot be chosen from 20"):
        d_optimal(vectors, 21, seed=0)
    with pytest.raises(ValueError, match="at least 4 are needed"):
        d_optimal(vectors, 3, seed=0)


def test_information_grows_in_proportion_to_the_mixtures() -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 3))
    assert information(np.vstack([vectors] * 3)) == pytest.approx(3 * information(vectors))
    assert information(vectors[:3]) == pytest.approx(0, abs=1e-3)


def test_principal_directions_are_few_and_uncorrelated() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 6)) * [1, 10, 1e-3, 1, 1, 1e5]
    scores = principal_directions(np.column_stack([plane, np.full(40, 3.0)]), 1 - 1e-9, 9)
    assert scores.shape == (40, 2)
    assert scores.T @ scores / 40 == pytest.approx(np.eye(2), abs=1e-9)
    assert principal_directions(plane, 1 - 1e-9, 1).shape == (40, 1)
    assert principal_directions(np.ones((5, 2)), 0.9, 2).shape == (5, 0)
    assert len(d_optimal(np.empty((5, 0)), 3, seed=0)) == 3  # nothing to tell them apart by


HELD = {"a": 60, "b": 50, "c": 40}


def candidates() -> pd.DataFrame:
    rows = [(f"{s}{i}", s) for s, count in HELD.items() for i in range(count)]
    return pd.DataFrame(rows, columns=["example_id", "source"])


def scores(spread: float = 0.0) -> pd.DataFrame:
    frame, rng = candidates(), np.random.default_rng(0)
    level = {"a": 1.0, "b": 2.0, "c": 4.0}
    parts = []
    for name, sign in (("ppl", 1.0), ("reward", -1.0)):
        value = frame["source"].map(level) ** (1 if sign > 0 else 2) * sign
        value = value + spread * rng.normal(size=len(frame))
        parts.append(frame[["example_id"]].assign(indicator=name, value=value))
    return pd.concat(parts, ignore_index=True)


def test_expected_indicators_are_those_of_the_drawn_mixtures() -> None:
    # Without spread inside a source, what is expected is what is drawn.
    long = scores().merge(candidates(), on="example_id")
    means = long.pivot_table(index="source", columns="indicator", values="value")
    expected = expected_indicators(HELD, means, range(6), 30)
    for seed in range(6):
        drawn = draw_mixture(candidates(), seed, 30).merge(scores(), on="example_id")
        actual = drawn.groupby("indicator")["value"].mean()
        assert expected.loc[seed].to_dict() == pytest.approx(actual.to_dict())
    wider = expected_indicators(HELD, means, range(6), 30, "dirichlet")
    for seed in range(6):
        drawn = draw_mixture(candidates(), seed, 30, "dirichlet").merge(scores(), on="example_id")
        actual = drawn.groupby("indicator")["value"].mean()
        assert wider.loc[seed].to_dict() == pytest.approx(actual.to_dict())
    with pytest.raises(ValueError, match="for any example of c;"):
        expected_indicators(HELD, means.drop(index="c"), range(6), 30)
    with pytest.raises(MixtureError, match="200 examples"):
        expected_indicators(HELD, means, range(6), 200)


def make_study() -> Study:
    source, model = {"path": "none.jsonl"}, {"path": "none"}
    return Study.model_validate(
        {
            "name": "test",
            "data": {
                "candidates": dict.fromkeys(HELD, source),
                "unseen": source,
                "evaluation": source,
            },
            "models": {"base": model, "embedding": model},
            "mixtures": {"seeds": 6, "candidate_seeds": 60, "size": 30},
            "scoring": {"indicators": {"ppl": "perplexity", "reward": "embedding_cosine_proxy"}},
        }
    )


def propose(scored: pd.DataFrame) -> dg.ExecuteInProcessResult:
    def made(name: str, frame: pd.DataFrame) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def table() -> pd.DataFrame:
            return frame

        return table

    tables = [made("candidate_datasets", candidates()), made("example_scores", scored)]
    resources = {"study": make_study(), "io_manager": dg.mem_io_manager}
    return dg.materialize([*tables, seed_design], resources=resources)


def test_the_asset_proposes_seeds_that_the_profile_takes() -> None:
    result = propose(scores(spread=0.1)[::2])
    table = result.output_for_node("seed_design")
    assert list(table["seed"]) == list(range(60))
    [event] = result.asset_materializations_for_node("seed_design")
    text = str(event.metadata["paste into the profile"].value)
    block = yaml.safe_load(text.removeprefix("```yaml\n").removesuffix("```"))["mixtures"]
    pasted = MixtureSettings.model_validate(block)
    assert pasted.seed_numbers == tuple(table.loc[table["chosen"], "seed"])
    assert len(pasted.seed_numbers) == 6
    # Three sources: the mixtures lie in a plane, and the best of 60 beat six random ones.
    assert event.metadata["directions in which the mixtures differ"].value == 2
    worth = event.metadata["random seeds with the same information, at most"].value
    assert isinstance(worth, float)
    assert worth > 9


def test_a_source_without_scores_is_taken_as_average_and_named() -> None:
    long = scores()
    result = propose(long[~long["example_id"].str.startswith("c")])
    [event] = result.asset_materializations_for_node("seed_design")
    assert event.metadata["scored examples by source"].value == {
        "a": "60 of 60", "b": "50 of 50", "c": "0 of 40"
    }  # fmt: skip
    # What is scored: 60 times 1 and 50 times 2.
    assert r"| c | 1\.455 |" in str(event.metadata["source means"].value)
    # Nothing scored at all: the expected mixtures are alike, and any seeds are as good.
    result = propose(long[:0])
    [event] = result.asset_materializations_for_node("seed_design")
    assert result.output_for_node("seed_design")["chosen"].sum() == 6
    assert event.metadata["directions in which the mixtures differ"].value == 0


def test_seeds_are_a_number_or_a_list_of_distinct_numbers() -> None:
    assert MixtureSettings(seeds=5).seed_numbers == (0, 1, 2, 3, 4)
    named = MixtureSettings.model_validate({"seeds": [9, 2, 40, 7]})
    assert named.seed_numbers == (9, 2, 40, 7)
    assert MixtureSettings.model_validate(named.model_dump(mode="json")) == named
    for wrong, message in (
        ([1, 2, 3, 3], "distinct"),
        ([1, 2, 3], "greater than or equal to 4"),
        ([1, 2, 3, -4], "each from 0"),
        ([1, 2, 3, "x"], "valid integer"),
        (True, "valid integer"),
    ):
        with pytest.raises(ValueError, match=message):
            MixtureSettings.model_validate({"seeds": wrong})
