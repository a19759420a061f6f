"""The shapes of the rule: each against its library, the choice among them by simulation."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.evidence.evidence import rule_findings
from im_assets.rule.document import coefficient_table, from_json, load_rule, to_json
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import Coefficient, Curve, Rule
from im_assets.rule.shapes import additive, boosting, regularized
from im_assets.rule.shapes.additive import fit_additive, penalized_fit
from im_assets.rule.shapes.boosting import fit_boosting
from im_assets.rule.shapes.comparing import SIMPLEST_FIRST, compare, fit_shape
from im_assets.rule.shapes.regularized import fit_elastic_net, fit_ridge
from im_assets.rule.shapes.sample import FOLDS, Bend, Fit, Sample, standardized
from im_resources.study import RuleSettings, Shape
from tests.rule.data import SWISS, SWISS_NAMES

EVERY = RuleSettings(shapes=SIMPLEST_FIRST, permutations=19, bootstrap=10)


def sample(rows: int = 40, columns: int = 4, seed: int = 0, bent: bool = True) -> Sample:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    y = (x[:, 0] ** 2 if bent else x[:, 0]) + 0.5 * x[:, -1] + 0.3 * rng.normal(size=rows)
    return Sample(x, y, np.ones(rows, dtype=int), rng.random(rows))


def table_of(one: Sample) -> pd.DataFrame:
    frame = pd.DataFrame(one.x, columns=[f"x{i}" for i in range(one.x.shape[1])])
    frame.insert(0, "partition", [f"seed-{i:03d}" for i in range(len(one))])
    return frame.assign(log_loss=one.y)


# -- each against its library -------------------------------------------------


def test_ridge_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import RidgeCV

    swiss = Sample(
        SWISS[SWISS_NAMES].to_numpy(), SWISS["log_loss"].to_numpy(), np.ones(47, int), np.arange(47)
    )
    z, _, _ = standardized(swiss)
    theirs = RidgeCV(alphas=regularized.PENALTIES * 47).fit(z, swiss.y)
    assert fit_ridge(swiss).predict(swiss.x) == pytest.approx(theirs.predict(z), rel=1e-6)


def test_the_elastic_net_is_that_of_scikit_learns_example() -> None:
    """https://scikit-learn.org/stable/modules/generated/sklearn.linear_model.ElasticNetCV.html:
    the data of the example, and its intercept, where our folds are its folds."""
    from sklearn.datasets import make_regression
    from sklearn.linear_model import ElasticNetCV

    x, y = make_regression(n_features=2, random_state=0)
    example = ElasticNetCV(cv=5, random_state=0).fit(x, y)
    assert example.predict([[0, 0]]) == pytest.approx([0.398], abs=1e-3)
    ours = Sample(x, y, np.ones(100, dtype=int), np.arange(100))
    z, _, _ = standardized(ours)
    splits = [(np.flatnonzero(ours.folds != f), np.flatnonzero(ours.folds == f)) for f in range(5)]
    theirs = ElasticNetCV(
        l1_ratio=regularized.RATIOS, alphas=regularized.STEPS, cv=splits, max_iter=10_000
    ).fit(z, y - y.mean())
    fit = fit_elastic_net(ours)
    assert fit.predict(x) == pytest.approx(theirs.predict(z) + y.mean(), rel=1e-9)
    assert fit.predict(np.zeros((1, 2))) == pytest.approx([0.398], abs=0.6)  # of y's 60


def test_penalised_splines_are_those_of_statsmodels_example() -> None:
    """https://www.statsmodels.org/stable/gam.html: city_mpg of cars, its bases and penalties."""
    from pathlib import Path

    import statsmodels.gam
    from statsmodels.gam.api import BSplines, GLMGam

    folder = Path(statsmodels.gam.__file__).parent / "tests" / "results"
    cars = pd.read_csv(folder / "autos.csv")[["city_mpg", "fuel", "drive", "weight", "hp"]].dropna()
    splines = BSplines(cars[["weight", "hp"]], df=[12, 10], degree=[3, 3])
    alpha = np.array([21833888.8, 6460.38479])
    exog = pd.get_dummies(cars[["fuel", "drive"]], drop_first=True).astype(float)
    exog.insert(0, "const", 1.0)
    theirs = GLMGam(cars["city_mpg"], exog=exog, smoother=splines, alpha=alpha).fit()
    assert theirs.params.iloc[0] == pytest.approx(51.9923, abs=1e-3)  # as the page has it
    design = np.column_stack([exog.to_numpy(), splines.basis])
    penalty, column = np.zeros((design.shape[1],) * 2), exog.shape[1]
    for size, part in zip(alpha, splines.smoothers, strict=True):
        width = part.cov_der2.shape[0]
        penalty[column : column + width, column : column + width] = 2 * size * part.cov_der2
        column += width
    # The example writes its penalties for the library's own likelihood, at scale 1.
    mine, _ = penalized_fit(design, cars["city_mpg"].to_numpy(float), np.ones(len(cars)), penalty)
    assert design @ mine == pytest.approx(theirs.fittedvalues.to_numpy(), rel=1e-5)


def test_the_error_left_out_of_penalised_splines_is_that_of_refits() -> None:
    one = sample(20, 1)
    own, _, part = additive.spline_basis(one.x[:, 0], np.array([0.0]))
    counts = np.where(np.arange(20) < 3, 2, 1)
    root = np.sqrt(counts)
    design, target = root[:, None] * np.column_stack([np.ones(20), own]), root * one.y
    penalty = np.zeros((design.shape[1],) * 2)
    penalty[1:, 1:] = part
    _, error = penalized_fit(design, target, root, penalty)
    by_hand = 0.0
    for out in range(20):
        kept = np.arange(20) != out
        refit, _ = penalized_fit(design[kept], target[kept], root[kept], penalty)
        by_hand += (target[out] - design[out] @ refit) ** 2
    assert error == pytest.approx(by_hand, rel=1e-8)


def test_the_steps_are_lightgbms_own_predictions() -> None:
    import lightgbm

    one = sample()
    fit = fit_boosting(one)
    parameters = {
        "objective": "regression", "num_leaves": 2, "learning_rate": boosting.RATE,
        "min_data_in_leaf": boosting.LEAF, "min_data_in_bin": 1, "boost_from_average": False,
        "verbose": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True, "seed": 0,
    }  # fmt: skip
    target = one.y - one.y.mean()
    booster = lightgbm.train(parameters, lightgbm.Dataset(one.x, target), boosting.ROUNDS)
    new = np.random.default_rng(1).normal(size=(200, 4))
    errors = [
        np.abs(booster.predict(new, num_iteration=n) + one.y.mean() - fit.predict(new)).max()
        for n in range(1, boosting.ROUNDS + 1)
    ]
    assert min(errors) < 1e-6
    assert set(np.flatnonzero(fit.mask)) >= {0}


# -- what every shape keeps ----------------------------------------------------


@pytest.mark.parametrize("shape", SIMPLEST_FIRST)
def test_order_of_rows_and_columns_is_nothing(shape: Shape) -> None:
    one = sample()
    rng = np.random.default_rng(3)
    rows, columns = rng.permutation(40), np.array([2, 0, 3, 1])
    other = Sample(one.x[rows][:, columns], one.y[rows], one.counts, one.ranks[rows])
    new = rng.normal(size=(50, 4))
    fits = (fit_shape(shape, part, EVERY) for part in (one, other))
    first, second = (f.predict(x) for f, x in zip(fits, (new, new[:, columns]), strict=True))
    assert first == pytest.approx(second, abs=1e-4)


@pytest.mark.parametrize("shape", SIMPLEST_FIRST)
@pytest.mark.parametrize("what", ["constant target", "constant columns", "three sets", "copies"])
def test_hard_samples_give_a_finite_fit(shape: Shape, what: str) -> None:
    one = sample()
    if what == "constant target":
        one = Sample(one.x, np.full(40, 0.7), one.counts, one.ranks)
    elif what == "constant columns":
        one = Sample(np.full((40, 2), 0.1), one.y, one.counts, one.ranks)
    elif what == "three sets":
        one = one.take(np.arange(3))
    else:
        counts = np.random.default_rng(0).integers(1, 4, size=40)
        one = Sample(one.x, one.y, counts, one.ranks)
    fit = fit_shape(shape, one, EVERY)
    predicted = fit.predict(one.x)
    assert np.isfinite(predicted).all()
    assert np.average(predicted, weights=one.counts) == pytest.approx(
        np.average(one.y, weights=one.counts), abs=1e-6
    )
    if what.startswith("constant"):
        assert not fit.mask.any()


@settings(deadline=None)
@given(rows=st.integers(2, 60), seed=st.integers(0, 9))
def test_folds_are_even_and_keep_copies_together(rows: int, seed: int) -> None:
    one = sample(rows, 1, seed)
    sizes = np.bincount(one.folds, minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1
    assert len(one.folds) == rows  # one fold a set, however often it counts


# -- the choice ----------------------------------------------------------------


def test_a_line_stays_a_line_and_a_bend_is_found() -> None:
    """24 sets, six indicators, 20 studies each: where the truth is one indicator, a curve is taken
    in few; where it turns, in nearly all, and then predicts new sets far better."""
    taken: dict[bool, list[str]] = {True: [], False: []}
    errors = []
    for seed in range(20):
        for bent in (True, False):
            rng = np.random.default_rng([seed, bent])
            x = rng.normal(size=(24, 6))
            truth = x[:, 0] ** 2 if bent else x[:, 0]
            y = truth + 0.5 * rng.normal(size=24)
            one = Sample(x, y, np.ones(24, dtype=int), rng.random(24))
            found = compare(one, EVERY)
            taken[bent].append(found.chosen)
            if bent:
                new = np.clip(rng.normal(size=(300, 6)), x.min(axis=0), x.max(axis=0))
                line = fit_shape("line", one, EVERY)
                errors.append(
                    [
                        np.sqrt(np.mean((f.predict(new) - new[:, 0] ** 2) ** 2))
                        for f in (found.fit, line)
                    ]
                )
    curved = ("additive", "boosting")
    assert sum(shape in curved for shape in taken[False]) <= 3
    assert sum(shape in curved for shape in taken[True]) >= 17
    mine, straight = np.mean(errors, axis=0)
    assert mine < 0.7 * straight


def test_the_simplest_within_one_standard_error_is_taken() -> None:
    found = compare(sample(bent=False), EVERY)
    mean = found.errors.mean(axis=1)
    best = int(np.argmin(mean))
    apart = found.errors - found.errors[best]
    error = apart.std(axis=1) / np.sqrt(apart.shape[1] - 1)
    within = [s for s, a, e in zip(found.shapes, apart.mean(axis=1), error, strict=True) if a <= e]
    assert found.chosen == within[0]


@pytest.mark.parametrize("value", [0.1, math.log(1.5), 1e9 + 0.1])
def test_of_a_target_that_does_not_vary_no_shape_fits_its_rounding(value: float) -> None:
    x = sample(14, 2).x
    same = Sample(x, np.full(14, value), np.ones(14, dtype=int), np.arange(14.0))
    for shapes in (SIMPLEST_FIRST, SIMPLEST_FIRST[1:]):
        found = compare(same, RuleSettings(shapes=shapes))
        assert not found.fit.mask.any()
        assert found.chosen == shapes[0]
        assert found.r2_left_out == 0
        np.testing.assert_array_equal(found.fit.predict(x), value)


def test_shuffled_losses_are_not_beyond_chance_with_all_shapes_either() -> None:
    few = RuleSettings(shapes=("line", "ridge", "additive"), permutations=19, bootstrap=10)
    called = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(16, 3)), rng.normal(size=16)
        table = table_of(Sample(x, y, np.ones(16, int), y))
        called += bool(fit_rule(table, ["x0", "x1", "x2"], few).beyond_chance)
    assert called <= 4  # of 20 at a true 5 %: more in one of 400


# -- the rule as a value ---------------------------------------------------------


@pytest.fixture(scope="module")
def bent_rule() -> tuple[Rule, pd.DataFrame]:
    table = table_of(sample())
    names = [f"x{i}" for i in range(4)]
    return fit_rule(table, names, EVERY), table


def test_a_bent_rule_is_applied_without_the_library(bent_rule: tuple[Rule, pd.DataFrame]) -> None:
    rule, _ = bent_rule
    assert rule.curves
    new = pd.DataFrame(
        np.random.default_rng(5).normal(size=(300, 4)) * 3, columns=[f"x{i}" for i in range(4)]
    )
    document = json.loads(to_json(rule))["rule"]
    by_hand = []
    for example in new.to_dict("records"):
        value = document["constant"]["estimate"]
        for term in [*document["coefficients"], *document["curves"]]:
            v = example[term["name"]]
            v = math.copysign(math.log1p(abs(v)), v) if document["transform"] == "log" else v
            v = min(max(v, term["low"]), term["high"]) if document["winsorize"] else v
            if "estimate" in term:
                value += term["estimate"] * v
                continue
            at, values = term["at"], term["value"]
            place = sum(point < v for point in at)
            if term["steps"]:
                value += values[place]
            elif place in (0, len(at)):
                value += values[min(place, len(at) - 1)]
            else:
                share = (v - at[place - 1]) / (at[place] - at[place - 1])
                value += values[place - 1] + share * (values[place] - values[place - 1])
        by_hand.append(value)
    assert rule.predict_examples(new) == pytest.approx(by_hand, abs=1e-12)


def test_a_bent_rule_survives_its_document_and_its_table(
    bent_rule: tuple[Rule, pd.DataFrame],
) -> None:
    rule, table = bent_rule
    assert from_json(to_json(rule)) == rule
    frame = coefficient_table(rule)
    assert load_rule(frame) == rule
    assert list(frame["term"]) == ["constant", *rule.indicators]
    assert "f(x0)" in rule.formula
    moved = rule.curves[0].model_copy(update={"value": tuple(v + 1 for v in rule.curves[0].value)})
    assert rule.model_copy(update={"curves": (moved, *rule.curves[1:])}).id != rule.id
    names = set(rule.indicators)
    assert rule.predict_points(table) == pytest.approx(
        rule.without(set()).predict_points(table[list(names)])
    )


def test_the_evidence_tells_the_shapes(bent_rule: tuple[Rule, pd.DataFrame]) -> None:
    rule, table = bent_rule
    found = rule_findings(table, dict.fromkeys(table["partition"], "a"), rule, EVERY)
    shapes = found[found["section"] == "shape"].set_index("item")
    assert list(shapes.index) == list(SIMPLEST_FIRST)
    assert list(shapes.index[shapes["verdict"] == "chosen"]) == [rule.shape]
    assert shapes["x"].sum() == pytest.approx(1)
    assert shapes.loc["line", "gain"] == 0
    assert shapes["gain_low"].to_dict()[rule.shape] > 0  # else the line had been within an error
    assert set(found.loc[found["section"] == "inclusion", "verdict"]) == {"in_rule", "not_in_rule"}
    assert not (found["section"] == "residuals").any()  # leverage is that of least squares


def test_one_shape_that_is_a_line_is_the_rule_of_before() -> None:
    table, names = table_of(sample(bent=False)), [f"x{i}" for i in range(4)]
    few = {"permutations": 19, "bootstrap": 10}
    alone = fit_rule(table, names, RuleSettings(**few))
    among = fit_rule(table, names, RuleSettings(shapes=("line", "additive"), **few))
    assert alone.shapes == ()
    assert among.shape == "line"
    assert (among.id, among.coefficients) == (alone.id, alone.coefficients)


@pytest.mark.parametrize(
    ("value", "at", "steps"), [((1.0,), (0.0, 1.0), False), ((1.0, 2.0), (1.0, 0.0), False),
                               ((1.0,), (0.0,), True), ((), (), False)],
)  # fmt: skip
def test_a_curve_has_to_be_one(value: tuple, at: tuple, steps: bool) -> None:
    with pytest.raises(ValueError, match="curve of x"):
        Curve(name="x", at=at, value=value, steps=steps, low=0, high=1)


def test_a_curve_beyond_its_points_is_refused() -> None:
    with pytest.raises(ValueError, match="winsorize: true"):
        RuleSettings(shapes=("line", "additive"), winsorize=False)
    with pytest.raises(ValueError, match="names one twice"):
        RuleSettings(shapes=("line", "line"))
    curve = Curve(name="x", at=(0, 1), value=(0, 1), low=0, high=1)
    with pytest.raises(ValueError, match="winsorize it"):
        Rule(source="fitted", constant=Coefficient(name="constant", estimate=0), curves=(curve,))


@pytest.mark.parametrize(
    ("value", "sign", "side"),
    [((0, 1), 1, "less"), ((0, 1), -1, "more"), ((1, 0, 1), 1, "near"), ((0, 1, 0), 1, "more")],
)
def test_where_a_curve_is_best(value: tuple[float, ...], sign: int, side: str) -> None:
    at = tuple(np.linspace(0, 1, len(value)))
    assert Curve(name="x", at=at, value=value, low=0, high=1).best(sign)[1] == side


def test_a_bend_beyond_its_ends_is_level() -> None:
    line = Bend(np.array([0.0, 1.0]), np.array([2.0, 4.0]))
    assert list(line.of(np.array([-5, 0.5, 5.0]))) == [2, 3, 4]
    steps = Bend(np.array([0.0]), np.array([2.0, 4.0]), steps=True)
    assert list(steps.of(np.array([-1.0, 0.0, 0.1]))) == [2, 2, 4]
    assert not Fit(1.0, np.zeros(1), {0: Bend(np.array([0.0]), np.array([3.0]))}).mask.any()


def test_an_additive_fit_of_a_line_is_nearly_one() -> None:
    one = sample(60, 2, bent=False)
    fit = fit_additive(one, 2)
    new = np.random.default_rng(8).uniform(-1, 1, size=(100, 2))
    assert fit.predict(new) == pytest.approx(new[:, 0] + 0.5 * new[:, 1], abs=0.4)
