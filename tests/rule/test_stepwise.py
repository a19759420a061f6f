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
    assert result.dropped == {"flat": Dropped("constant"), "copy": Dropped("copy", ("x0",))}
    dropped = {s.indicator: (s.reason, s.note) for s in result.path if s.action == "drop"}
    assert dropped["flat"] == ("constant", "constant over the mixtures")
    assert dropped["copy"] == ("copy", "a copy of x0 up to scale and shift")
    # Any two of x0, x1 and mix say the same, and the third cannot enter.
    assert len(result.chosen) == 2
    plain = stepwise(table, "log_loss", ["x0", "x1"])
    assert result.path[-1].r2 == pytest.approx(plain.path[-1].r2)


def test_a_backward_search_leaves_out_the_weakest_of_a_dependency() -> None:
    table = random_study(slopes=(0.5, -0.3, 0.0), noise=0.1)
    table["mix"] = table.x0 - table.x1 + 5 * table.x2
    for names in (["x0", "x1", "x2", "mix"], ["mix", "x2", "x1", "x0"]):
        result = stepwise(table, "log_loss", names, direction="backward")
        assert [d.kind for d in result.dropped.values()] == ["combination"]
        assert result.dropped.keys() <= {"x2", "mix"}  # which hardly follow the loss
        assert set(result.chosen) == {"x0", "x1"}


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
    assert stepwise(table, "log_loss", names).dropped == {}
    result = stepwise(table, "log_loss", names, direction="backward")
    # Eight rows: a constant, six indicators, and one degree of freedom.
    weakest = table[names].corrwith(table["log_loss"]).abs().nsmallest(3).index
    assert list(result.dropped) == list(weakest)
    for why in result.dropped.values():
        assert why.kind == "few_mixtures"
        assert "too few mixtures: 8 cannot tell this many indicators apart" in why.note
        assert "mixtures.seeds" in why.note


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(6, 16),
    criterion=st.sampled_from(CRITERIA),
    direction=st.sampled_from(DIRECTIONS),
    repeated=st.booleans(),
)
def test_the_order_of_columns_and_rows_changes_nothing(
    seed: int, rows: int, criterion: Criterion, direction: Direction, repeated: bool
) -> None:
    # Ten columns, so often more than rows; `mix` is a combination, `copy` a copy of x1.
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 8))
    names = [f"x{i}" for i in range(8)]
    table = pd.DataFrame(x, columns=names).assign(copy=2 - 3 * x[:, 1], mix=x[:, 5] + x[:, 6])
    names += ["copy", "mix"]
    table["log_loss"] = x[:, 0] + 0.6 * x[:, 1] + 0.3 * rng.normal(size=rows)
    if repeated:  # as a resample
        table = table.loc[rng.integers(0, rows, rows)].reset_index(drop=True)
        if table["x0"].nunique() < 4:
            return

    def outcome(table: pd.DataFrame, order: list[str]) -> tuple[set[str], float]:
        found = stepwise(table, "log_loss", order, criterion=criterion, direction=direction)
        chosen = {"x1" if name == "copy" else name for name in found.chosen}
        return chosen, found.path[-1].r2 or 0.0

    first = outcome(table, names)
    columns = [names[i] for i in rng.permutation(10)]
    mixed = table.sample(frac=1, random_state=seed % 2**32, ignore_index=True)
    for again in (outcome(table, columns), outcome(mixed, names)):
        assert again[0] == first[0]
        assert again[1] == pytest.approx(first[1], abs=1e-7)
