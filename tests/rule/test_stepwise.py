import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.rule.regression import Dropped
from im_assets.rule.stepwise import Criterion, Direction, Selected, stepwise
from tests.rule.data import LONGLEY, LONGLEY_NAMES, STACKLOSS, random_study

CRITERIA: list[Criterion] = ["p_value", "aic", "bic"]
DIRECTIONS: list[Direction] = ["forward", "backward", "both"]


def moves(result: Selected) -> list[tuple[str, str | None]]:
    return [(s.action, s.indicator) for s in result.path if s.action in ("enter", "remove")]


def orthogonal() -> pd.DataFrame:
    """Four centred orthogonal columns: an indicator's t does not depend on the order of entry."""
    rng = np.random.default_rng(3)
    q, _ = np.linalg.qr(np.column_stack([np.ones(40), rng.normal(size=(40, 5))]))
    table = pd.DataFrame(q[:, 1:5], columns=list("abcd"))
    return table.assign(log_loss=2 * q[:, 2] - 5 * q[:, 4] + 3 * q[:, 1] + q[:, 5])


def test_forward_enters_orthogonal_columns_by_size_of_effect() -> None:
    result = stepwise(orthogonal(), "log_loss", list("abcd"), direction="forward")
    assert moves(result) == [("enter", "d"), ("enter", "a"), ("enter", "b")]
    assert result.chosen == ("a", "b", "d")  # in the candidates' order
    # Orthonormal columns: squared slopes are sums of squares, so R2 is known at every step.
    assert [s.r2 for s in result.path] == pytest.approx([0, 25 / 39, 34 / 39, 38 / 39])


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_search_finds_the_indicators_with_an_effect(
    criterion: Criterion, direction: Direction
) -> None:
    result = stepwise(
        orthogonal(), "log_loss", list("abcd"), criterion=criterion, direction=direction
    )
    assert result.chosen == ("a", "b", "d")


def test_stackloss_drops_acid_as_r_does() -> None:
    # R: step(lm(stack.loss ~ ., stackloss)) removes Acid.Conc. (p = 0.344) and stops.
    for criterion in CRITERIA:
        result = stepwise(
            STACKLOSS, "log_loss", ["air", "water", "acid"],
            criterion=criterion, direction="backward",
        )  # fmt: skip
        assert moves(result) == [("remove", "acid")]
    assert result.path[-1].p == pytest.approx(0.34405, abs=1e-5)


def test_longley_aic_removes_the_two_columns_that_r_removes() -> None:
    # R: step(lm(Employed ~ ., longley)) removes GNP.deflator, then Population.
    result = stepwise(
        LONGLEY, "log_loss", LONGLEY_NAMES,
        criterion="aic", direction="backward", max_indicators=6,
    )  # fmt: skip
    assert moves(result) == [("remove", "deflator"), ("remove", "population")]


def test_both_removes_an_indicator_that_later_entries_make_redundant() -> None:
    # proxy = a + b + a little noise: the best alone, and nothing beside a and b together.
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    table = pd.DataFrame({"a": a, "b": b, "proxy": a + b + 0.3 * rng.normal(size=200)})
    table["log_loss"] = a + b + 0.1 * rng.normal(size=200)
    both = stepwise(table, "log_loss", ["a", "b", "proxy"])
    assert moves(both) == [("enter", "proxy"), ("enter", "b"), ("enter", "a"), ("remove", "proxy")]
    forward = stepwise(table, "log_loss", ["a", "b", "proxy"], direction="forward")
    assert forward.chosen == ("a", "b", "proxy")


def test_useless_columns_are_dropped_with_a_reason() -> None:
    table = random_study().assign(flat=0.1 + 0.2, copy=lambda t: 3 * t.x0 - 2)
    table["mix"] = table.x0 * 2 + table.x1
    result = stepwise(table, "log_loss", ["flat", "x0", "copy", "x1", "mix"])
    assert result.dropped == {
        "flat": Dropped("constant"),
        "copy": Dropped("combination", ("x0",)),
        "mix": Dropped("combination", ("x0", "x1")),
    }
    dropped = {s.indicator: (s.reason, s.note) for s in result.path if s.action == "drop"}
    assert dropped["flat"] == ("constant", "constant over the mixtures")
    assert dropped["mix"] == ("combination", "an exact linear combination of x0, x1")
    assert result.chosen == ("x0", "x1")


def test_the_path_table_shows_the_criterion() -> None:
    table = stepwise(random_study(), "log_loss", ["x0", "x1", "x2"], criterion="bic").table
    assert list(table.columns[:8]) == [
        "step", "action", "indicator", "value", "p", "aic", "bic", "r2"
    ]  # fmt: skip
    assert (table["value"] == table["bic"]).all()
    assert table["bic"].is_monotonic_decreasing


def test_at_most_so_many_enter_and_the_default_is_one_for_five_rows() -> None:
    table = random_study(rows=60, slopes=(1, 1, 1, 1), noise=0.1)
    names = ["x0", "x1", "x2", "x3"]
    for direction in DIRECTIONS:
        result = stepwise(table, "log_loss", names, direction=direction, max_indicators=2)
        assert len(result.chosen) == 2
    assert len(stepwise(table[:12], "log_loss", names).chosen) == 2
    assert len(stepwise(table[:4], "log_loss", ["x0"], p_enter=0.99, p_remove=0.99).chosen) == 1


@pytest.mark.parametrize("criterion", CRITERIA)
def test_ties_go_to_the_first_candidate(criterion: Criterion) -> None:
    # b is a in reverse and the loss is symmetric, so both fit equally well but for rounding.
    for seed in range(10):
        a = np.random.default_rng(seed).normal(size=12)
        table = pd.DataFrame({"a": a, "b": a[::-1], "log_loss": a + a[::-1]})
        for order in (["a", "b"], ["b", "a"]):
            result = stepwise(table, "log_loss", order, criterion=criterion, max_indicators=1)
            assert result.chosen in ((order[0],), ())


def test_a_constant_loss_gives_no_indicator() -> None:
    for criterion in CRITERIA:
        for direction in DIRECTIONS:
            result = stepwise(
                random_study().assign(log_loss=0.7), "log_loss", ["x0", "x1"],
                criterion=criterion, direction=direction,
            )  # fmt: skip
            assert result.chosen == ()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_an_exact_fit_stops_the_search(criterion: Criterion) -> None:
    # What x0 leaves is rounding, and some other column always explains part of rounding.
    for seed in range(10):
        table = random_study(slopes=(1, 0, 0, 0), noise=0, seed=seed)
        result = stepwise(table, "log_loss", ["x1", "x0", "x2", "x3"], criterion=criterion)
        assert result.chosen == ("x0",)


def test_bad_input_is_named() -> None:
    table = random_study()
    with pytest.raises(ValueError, match="x9"):
        stepwise(table, "log_loss", ["x0", "x9"])
    with pytest.raises(ValueError, match="x0: 1 of 24 values"):
        stepwise(table.assign(x0=[np.nan] + [1.0] * 23), "log_loss", ["x0"])
    with pytest.raises(ValueError, match="at least 3 rows"):
        stepwise(table[:2], "log_loss", ["x0"])
    with pytest.raises(ValueError, match="forward or both"):
        stepwise(table[:4], "log_loss", ["x0", "x1", "x2"], direction="backward")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(8, 16),
    rank=st.integers(1, 5),
    criterion=st.sampled_from(CRITERIA),
    direction=st.sampled_from(DIRECTIONS),
    thresholds=st.sampled_from([(0.05, 0.1), (0.5, 0.5), (0.99, 0.99)]),
)
def test_every_search_ends_also_on_collinear_columns(
    seed: int,
    rows: int,
    rank: int,
    criterion: Criterion,
    direction: Direction,
    thresholds: tuple[float, float],
) -> None:
    rng = np.random.default_rng(seed)
    # Integers, few values: copies, constants and ties are common; six columns of rank 5 or less.
    x = rng.integers(-2, 3, (rows, rank)) @ rng.integers(-2, 3, (rank, 6))
    names = [f"x{i}" for i in range(6)]
    table = pd.DataFrame(x, columns=names, dtype=float)
    table["log_loss"] = x[:, 0] * 0.5 + rng.integers(0, 3, rows)
    result = stepwise(
        table, "log_loss", names, criterion=criterion, direction=direction,
        p_enter=thresholds[0], p_remove=thresholds[1], max_indicators=3,
    )  # fmt: skip
    chosen = table[list(result.chosen)].to_numpy()
    assert len(result.chosen) <= 3
    assert np.linalg.matrix_rank(np.column_stack([np.ones(rows), chosen])) == len(result.chosen) + 1


def test_too_few_mixtures_are_not_blamed_on_the_indicator() -> None:
    rng = np.random.default_rng(1)
    names = [f"x{i}" for i in range(9)]
    table = pd.DataFrame(rng.normal(size=(8, 9)), columns=names)
    table["log_loss"] = rng.normal(size=8)
    table.insert(2, "copy", table.x0 + table.x1)
    result = stepwise(table, "log_loss", ["x0", "x1", "copy", *names[2:]])
    assert result.dropped["copy"] == Dropped("combination", ("x0", "x1"))
    assert result.dropped.keys() == {"copy", "x7", "x8"}  # eight rows: seven besides the constant
    for name in ("x7", "x8"):
        assert result.dropped[name] == Dropped("few_mixtures", tuple(names[:7]), 8)
        assert "too few mixtures: 8 tell at most 7 indicators apart" in result.dropped[name].note
        assert "mixtures.seeds" in result.dropped[name].note
