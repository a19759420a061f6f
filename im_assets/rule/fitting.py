"""Fitting the rule: log L(M_ft, D_eval) = b0 + sum b_i I_i(D) + e, by ordinary least squares.

Cao et al. 2023, arXiv 2307.06290 v1 (multivariate study); `rule.target` may put another measure in
the place of log L. Beside the fit this reports what a user
needs to distrust it: the error and rank correlation on mixtures left out of the whole procedure,
collinearity, and how few mixtures stand behind each indicator.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from im_assets.common.correlation import correlation
from im_assets.common.numbers import finite
from im_assets.rule.chance import permutation_test, told
from im_assets.rule.choosing import Points, choose, left_out
from im_assets.rule.model import (
    CHANCE,
    CONSTANT,
    Caution,
    Chance,
    Coefficient,
    Curve,
    Rule,
    ShapeError,
)
from im_assets.rule.refitting import lines_only, whole, without_each
from im_assets.rule.regression import inflation_factors, least_squares, term_statistics
from im_assets.rule.shapes.comparing import Compared, compare
from im_assets.rule.stepwise import Selected, indicator_limit
from im_assets.rule.target import PAPER, Target
from im_assets.rule.transform import scale_of
from im_resources.study import RuleSettings

__all__ = ["Rule", "fit_rule", "rank_correlation"]

FEW_ROWS = 10  # observations per candidate, the usual minimum (Harrell, Regression Modeling, 4.4)
HIGH_VIF = 10.0
# Of 95 % intervals so much wider than the bootstrap's, 84 to 98 % hold the rule's rank correlation
# with new mixtures, on simulated studies of 16 to 64; of the bootstrap's, 75 to 95 %.
WIDER = 1.3
ALMOST_ONE = 1 - 1e-6


def fit_rule(
    table: pd.DataFrame,
    indicators: Sequence[str],
    settings: RuleSettings,
    target: Target = PAPER,
) -> Rule:
    """Choose indicators and fit the rule on one row a mixture.

    Args:
        table: the target's column (``log_loss``), one column an indicator, and optionally ``seed``
            (unique; names the rows of ``loo_predictions``, default: the index), and ``transform``,
            the scale that the indicators are on (default: as they are).
        indicators: the candidate columns, in the order that settles ties.
        target: what the rule predicts.

    A rule without indicators is a legal result: r2 is 0, F and the rank correlations are None.

    Raises ValueError for repeated seeds, missing or non-finite values, fewer rows than three more
    than the indicators that a model may hold, or more indicators than all subsets can be tried of.
    """
    mixtures = Points.of(table, indicators, target.column)
    if said := too_few(len(table), len(indicators), settings):
        raise ValueError(said)
    rows = len(mixtures)
    found = None if lines_only(settings) else compare(whole(mixtures), settings)
    if found is None or found.chosen == "line":
        selected = choose(mixtures, settings)
        terms = _line(mixtures, selected.chosen, settings)
    else:
        selected = Selected(tuple(np.array(indicators)[found.fit.mask]), (), {})
        terms = _bent(mixtures, found)
    chance = permutation_test(mixtures, settings)
    honest, sloped = without_each(mixtures, settings)
    chosen, y = selected.chosen, mixtures.y
    # Folds may find slopes where the whole table does not; a rank correlation beside a rule that
    # ranks nothing would mislead, so it is left undefined.
    ranks: dict[str, float | None] = {}
    if chosen:
        low, high = rank_interval(y, honest, sloped, settings.confidence)
        ranks = {
            "loo_spearman": rank_correlation(y, honest, sloped),
            "loo_spearman_low": low,
            "loo_spearman_high": high,
        }
        if found is None or found.chosen == "line":
            ranks["loo_spearman_fixed"] = rank_correlation(y, *left_out(mixtures, settings, chosen))
    coefficients: tuple[Coefficient, ...] = terms["coefficients"]
    return Rule(
        source="fitted",
        target=target.measure,
        scale=target.scale,
        direction=target.direction,
        choose=settings.choose,
        n=rows,
        transform=scale_of(table),
        winsorize=settings.winsorize,
        chance=chance,
        confidence=settings.confidence,
        loo_rmse=finite(np.sqrt(np.mean((y - honest) ** 2))),
        loo_folds_without_slope=int((~sloped).sum()),
        loo_predictions=dict(zip(mixtures.seeds, map(float, honest), strict=True)),
        candidates=tuple(indicators),
        path=selected.path,
        shapes=() if found is None else shape_errors(found),
        warnings=(
            *_by_chance(chance, rows, chosen, target),
            *_warnings(rows, len(indicators), selected, coefficients, sloped, target),
        ),
        **ranks,
        **terms,
    )


def shape_errors(found: Compared) -> tuple[ShapeError, ...]:
    """The shapes with their errors on folds left out, and how they compare with the line's."""
    errors = []
    for place, shape in enumerate(found.shapes):
        rmse = float(np.sqrt(np.average(found.errors[place], weights=found.counts)))
        less, error = found.less_than("line", shape) if "line" in found.shapes else (0.0, 0.0)
        errors.append(ShapeError(shape=shape, rmse=rmse, less=less, less_error=error))
    return tuple(errors)


def _line(mixtures: Points, chosen: Sequence[str], settings: RuleSettings) -> dict[str, Any]:
    """The fields of a rule that is least squares on the chosen indicators."""
    y, x = mixtures.y, mixtures.x[:, [mixtures.names.index(name) for name in chosen]]
    with np.errstate(divide="ignore", invalid="ignore"):  # an exact fit leaves no residual
        ols = least_squares(y, x)
        statistics = term_statistics(y, x, settings.standard_errors, settings.confidence)
        f = ols.fvalue if chosen else np.nan
    vifs = [None, *(finite(v) for v in inflation_factors(x))]
    covered = [None, *(tuple(map(float, (c.min(), c.max()))) for c in x.T)]
    constant, *coefficients = [
        _coefficient(name, row, vif, ends)
        for name, row, vif, ends in zip((CONSTANT, *chosen), statistics, vifs, covered, strict=True)
    ]
    return {
        "reference": f"least squares on {len(y)} mixtures",
        "constant": constant,
        "coefficients": tuple(coefficients),
        "standard_errors": settings.standard_errors,
        "r2": finite(ols.rsquared) if chosen else 0.0,
        "adj_r2": finite(ols.rsquared_adj) if chosen else 0.0,
        "f": finite(f),
        "aic": finite(ols.aic),
        "bic": finite(ols.bic),
        "residual_std_error": finite(np.sqrt(ols.mse_resid)),
    }


def _bent(mixtures: Points, found: Compared) -> dict[str, Any]:
    """The fields of a rule of another shape: what it predicts by, and R2. Nobody knows standard
    errors of terms that were shrunk, nor how many parameters they are worth."""
    fit, y = found.fit, mixtures.y
    ends = dict(enumerate(zip(mixtures.x.min(axis=0), mixtures.x.max(axis=0), strict=True)))
    coefficients, curves = [], []
    for place in map(int, np.flatnonzero(fit.mask)):
        name, (low, high) = mixtures.names[place], map(float, ends[place])
        if (bend := fit.bends.get(place)) is None:
            slope = float(fit.slopes[place])
            coefficients.append(Coefficient(name=name, estimate=slope, low=low, high=high))
        else:
            curves.append(
                Curve(
                    name=name,
                    at=tuple(map(float, bend.at)),
                    value=tuple(map(float, bend.value)),
                    steps=bend.steps,
                    low=low,
                    high=high,
                )
            )
    return {
        "shape": found.chosen,
        "reference": f"{found.chosen.replace('_', ' ')} on {len(y)} mixtures",
        "constant": Coefficient(name=CONSTANT, estimate=fit.constant),
        "coefficients": tuple(coefficients),
        "curves": tuple(curves),
        "r2": fit.r2(mixtures.x, y),
    }


def rank_correlation(
    actual: np.ndarray, predicted: np.ndarray, sloped: np.ndarray | None = None
) -> float | None:
    """Spearman's rho of actual and predicted values, shape (rows,); None where it is undefined.

    A fold without a slope predicts the mean of the other rows, which falls as the left-out value
    rises: over such folds rho would be exactly -1 whatever the data. Such a fold ranks nothing, so
    its prediction counts as one tie, at the overall mean; if all folds tie there is no rho.
    """
    from scipy.stats import spearmanr

    if sloped is not None:
        predicted = np.where(sloped, predicted, actual.mean())
    if np.ptp(actual) == 0 or np.ptp(predicted) == 0:
        return None
    return finite(spearmanr(actual, predicted).statistic)


def rank_interval(
    actual: np.ndarray, predicted: np.ndarray, sloped: np.ndarray, confidence: float
) -> tuple[float | None, float | None]:
    """The interval of `rank_correlation` with left-out predictions, shape (rows,); None where it
    has none.

    The bootstrap over mixtures (BCa) keeps the predictions, though other mixtures would have led to
    another rule. So its ends are taken further off, on the scale of Fisher's z.
    """
    if len(actual) < 4 or rank_correlation(actual, predicted, sloped) is None:
        return None, None
    ranked = np.where(sloped, predicted, actual.mean())
    found = correlation(ranked, actual, "spearman", confidence=confidence, seed=6)
    if found.value is None or found.low is None or found.high is None:
        return None, None
    ends = np.arctanh(np.clip([found.low, found.value, found.high], -ALMOST_ONE, ALMOST_ONE))
    low, value, high = ends
    wider = np.tanh([value - WIDER * (value - low), value + WIDER * (high - value)])
    return float(wider[0]), float(wider[1])


def too_few(rows: int, candidates: int, settings: RuleSettings) -> str:
    """Why so many mixtures are too few for a rule, in words; '' where they are enough."""
    if settings.choose == "stepwise" and settings.direction == "backward":
        most = candidates
    else:
        most = min(candidates, settings.max_indicators or indicator_limit(max(rows, 3), None))
    if rows >= most + 3:
        return ""
    return (
        f"{rows} mixtures are too few for a rule of up to {most} indicators: at least {most + 3} "
        "are needed (more of them, mixtures.seeds, or a lower rule.max_indicators)"
    )


def _coefficient(
    name: str, statistics: np.ndarray, vif: float | None, covered: tuple[float, ...] | None
) -> Coefficient:
    # Neither t nor p: of an indicator that was chosen by the same losses they are no test.
    estimate, std_error, _, _, ci_low, ci_high = map(finite, statistics)
    assert estimate is not None
    low, high = covered or (None, None)
    return Coefficient(
        name=name,
        estimate=estimate,
        std_error=std_error,
        ci_low=ci_low,
        ci_high=ci_high,
        vif=vif,
        low=low,
        high=high,
    )


def _by_chance(chance: Chance, rows: int, chosen: Sequence[str], target: Target) -> list[Caution]:
    if not chosen or chance.loo_r2.p <= CHANCE:
        return []
    return [Caution(kind="chance", note=f"not beyond chance: {told(chance, rows, target.plural)}")]


def _warnings(
    rows: int,
    candidates: int,
    selected: Selected,
    terms: Sequence[Coefficient],
    sloped: np.ndarray,
    target: Target,
) -> list[Caution]:
    found = [
        Caution(kind="dropped", indicator=name, note=f"{name} was dropped: {why.note}")
        for name, why in selected.dropped.items()
    ]
    if not selected.chosen:
        note = f"no indicator entered: the rule is the mean {target.label} and ranks nothing"
        found.append(Caution(kind="no_indicator", note=note))
    elif any(term.std_error is not None for term in terms):
        note = "standard errors and intervals are optimistic: they ignore the selection"
        found.append(Caution(kind="selection_ignored", note=note))
    if candidates and rows < FEW_ROWS * candidates:
        note = (
            f"few mixtures: {rows} for {candidates} candidate indicators ({rows / candidates:.1f} "
            f"each; {FEW_ROWS} or more is a common minimum)"
        )
        found.append(Caution(kind="few_mixtures", note=note))
    for term in terms:
        if term.vif is not None and term.vif > HIGH_VIF:
            note = (
                f"{term.name} is collinear with the other indicators (VIF {term.vif:.1f}): its "
                "coefficient and sign are not reliable alone"
            )
            found.append(Caution(kind="collinear", indicator=term.name, note=note))
    if selected.chosen and not sloped.all():
        note = (
            f"unstable selection: in {int((~sloped).sum())} of {rows} leave-one-out folds no "
            "indicator entered"
        )
        found.append(Caution(kind="unstable_selection", note=note))
    return found
