from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.rule.choosing import Points, choose, left_out, selections
from im_assets.rule.fitting import fit_rule
from im_assets.rule.subsets import search_subsets
from im_resources.study import RuleSettings
from tests.rule.data import LONGLEY, LONGLEY_NAMES, STACKLOSS, random_study

STACKLOSS_NAMES = ["air", "water", "acid"]


def refitted_error(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of squared leave-one-out errors, each row left out by a fit of its own."""
    total = 0.0
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        design = np.column_stack([np.ones(len(y)), x])
        beta, *_ = np.linalg.lstsq(design[rest], y[rest], rcond=None)
        total += float((y[i] - design[i] @ beta) ** 2)
    return total


def by_refitting(x: np.ndarray, y: np.ndarray, limit: int) -> tuple[int, ...]:
    """The subset of least leave-one-out error, by fitting each subset without each row."""
    subsets = [s for k in range(limit + 1) for s in combinations(range(x.shape[1]), k)]
    return min(subsets, key=lambda s: refitted_error(x[:, list(s)], y))


def random_data(rows: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    return x, x @ rng.normal(size=columns) * 0.3 + rng.normal(size=rows)


def ones(rows: int) -> np.ndarray:
    return np.ones((1, rows))


@pytest.mark.parametrize(
    ("table", "names"), [(STACKLOSS, STACKLOSS_NAMES), (LONGLEY, LONGLEY_NAMES)]
)
def test_every_subset_s_error_is_that_of_refits(table: object, names: Sequence[str]) -> None:
    mixtures = Points.of(table, names)  # type: ignore[arg-type]
    z = (mixtures.x - mixtures.x.mean(axis=0)) / mixtures.x.std(axis=0)  # for the refits' digits
    found = search_subsets(mixtures.x, mixtures.y, ones(len(mixtures)), len(names))
    assert len(found.subsets) == 2 ** len(names)
    expected = [refitted_error(z[:, list(s)], mixtures.y) for s in found.subsets]
    assert found.press[0] == pytest.approx(expected, rel=1e-6)


def test_the_path_shows_the_best_subset_of_every_size() -> None:
    # By p-value acid leaves (p = 0.344), but without it the left-out error is higher.
    rule = fit_rule(STACKLOSS, STACKLOSS_NAMES, RuleSettings())
    assert rule.indicators == ("air", "water", "acid")
    assert (rule.choose, rule.standard_errors) == ("all_subsets", "HC3")
    best = {s.step: s for s in rule.path if s.action == "best"}
    assert [best[k].indicator for k in range(4)] == [None, "air", "air, water", "air, water, acid"]
    y = STACKLOSS["log_loss"].to_numpy()
    for size, names in enumerate([[], ["air"], ["air", "water"], STACKLOSS_NAMES]):
        press = refitted_error(STACKLOSS[names].to_numpy(), y)
        assert best[size].value == pytest.approx(np.sqrt(press / len(y)))
    for name in ("r2", "aic", "bic"):
        assert getattr(best[3], name) == pytest.approx(getattr(rule, name))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(9, 14), limit=st.integers(0, 4))
def test_the_chosen_subset_is_that_of_brute_force(seed: int, rows: int, limit: int) -> None:
    x, y = random_data(rows, 4, seed)
    found = search_subsets(x, y, ones(rows), limit)
    assert found.subsets[found.best[0]] == by_refitting(x, y, limit)


def test_weights_leave_rows_out_and_copies_leave_together() -> None:
    x, y = random_data(16, 3, 5)
    out = 1 - np.eye(16)
    found = search_subsets(x, y, out, 3)
    for i in range(16):
        rest = np.arange(16) != i
        alone = search_subsets(x[rest], y[rest], ones(15), 3)
        assert found.press[i] == pytest.approx(alone.press[0])
    # A resample: each mixture with all of its copies is predicted from the others.
    weights = np.random.default_rng(1).multinomial(16, np.ones(16) / 16)
    found = search_subsets(x, y, weights[None], 3)
    design = np.column_stack([np.ones(16), x[:, [0, 2]]])
    total = 0.0
    for i in range(16):
        kept = np.repeat(np.arange(16), np.where(np.arange(16) == i, 0, weights))
        beta, *_ = np.linalg.lstsq(design[kept], y[kept], rcond=None)
        total += float(weights[i] * (y[i] - design[i] @ beta) ** 2)
    assert found.press[0, found.subsets.index((0, 2))] == pytest.approx(total)


def test_many_losses_at_once_are_searched_as_one_by_one() -> None:
    x, y = random_data(14, 3, 2)
    losses = np.array([np.random.default_rng(i).permutation(y) for i in range(5)])
    found = search_subsets(x, losses, ones(14), 3)
    for row, shuffled in enumerate(losses):
        alone = search_subsets(x, shuffled, ones(14), 3)
        np.testing.assert_allclose(found.press[row], alone.press[0])


def test_ties_go_to_the_smaller_subset_and_the_first_candidate() -> None:
    x, _ = random_data(20, 2, 0)
    twice = np.column_stack([x[:, 0], x[:, 0] * 3 + 1, x[:, 1]])
    found = search_subsets(twice, twice[:, 0], ones(20), 3)
    assert found.subsets[found.best[0]] == (0,)  # an exact fit by (0,), (1,), and both with 2
    assert np.isinf(found.press[0, found.subsets.index((0, 1))])  # dependent: never chosen
    flat = search_subsets(x, np.full(20, 0.7), ones(20), 2)
    assert flat.subsets[flat.best[0]] == ()


def test_a_column_that_one_mixture_carries_cannot_be_tested_and_is_not_chosen() -> None:
    table = random_study(slopes=(0.5,)).assign(spike=[1.0] + [0.0] * 23)
    table["log_loss"] += 10 * table["spike"]
    rule = fit_rule(table, ["x0", "spike"], RuleSettings())
    assert "spike" not in rule.indicators
    assert np.isfinite(rule.loo_rmse or np.nan)


def test_the_nested_leave_one_out_chooses_in_every_fold() -> None:
    table = random_study(rows=15, slopes=(0.3, -0.2, 0.1), noise=0.3, seed=4)
    names = ["x0", "x1", "x2"]
    honest, _ = left_out(Points.of(table, names), RuleSettings(max_indicators=2))
    for i in range(len(table)):
        rest = table.drop(index=i)
        x, y = rest[names].to_numpy(), rest["log_loss"].to_numpy()
        chosen = list(by_refitting(x, y, 2))
        design = np.column_stack([np.ones(len(y)), x[:, chosen]])
        beta = np.linalg.solve(design.T @ design, design.T @ y)
        expected = beta[0] + table[names].to_numpy()[i, chosen] @ beta[1:]
        assert honest[i] == pytest.approx(expected)


def test_too_many_indicators_ask_for_stepwise() -> None:
    names = [f"x{i}" for i in range(16)]
    table = random_study(rows=30, slopes=[0.1] * 16)
    with pytest.raises(ValueError, match=r"16 indicators .*`rule\.choose: stepwise`"):
        fit_rule(table, names, RuleSettings())


def test_useless_columns_are_dropped_with_a_reason_and_warned_of() -> None:
    table = random_study().assign(flat=1.0, copy=lambda t: 3 * t.x0 - 2)
    found = choose(Points.of(table, ["flat", "x0", "copy", "x1"]), RuleSettings())
    assert set(found.dropped) == {"flat", "copy"}
    assert found.chosen == ("x0", "x1")


def test_versions_of_different_sizes_are_refused() -> None:
    mixtures = Points.of(random_study(), ["x0"])
    weights = np.ones((2, 24), dtype=int)
    weights[0, 0] = 0
    with pytest.raises(ValueError, match="different sizes"):
        selections(mixtures, weights, RuleSettings())


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(6, 14))
@settings(max_examples=40, deadline=None)
def test_the_order_of_columns_and_rows_changes_nothing(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 9))
    x[:, 8] = 2 - x[:, 0]  # a copy: which of the two is named is the order's
    y = x[:, 0] + 0.6 * x[:, 1] + 0.3 * rng.normal(size=rows)

    def chosen(columns: np.ndarray, places: np.ndarray) -> set[str]:
        names = tuple(f"x{i % 8}{'c' if i == 8 else ''}" for i in columns)
        seeds = tuple(map(str, range(rows)))
        mixtures = Points(seeds, names, x[places][:, columns], y[places])
        whole = choose(mixtures, RuleSettings()).chosen
        [mask] = selections(mixtures, np.ones((1, rows), dtype=int), RuleSettings())
        assert mixtures.mask(whole).tolist() == mask.tolist()
        return {name[:2] for name in whole}

    first = chosen(np.arange(9), np.arange(rows))
    assert chosen(rng.permutation(9), np.arange(rows)) == first
    assert chosen(np.arange(9), rng.permutation(rows)) == first
