"""Stepwise selection of indicators for a least-squares rule (Cao et al. 2023, v1, multivariate).

statsmodels fits but does not select, so the search is here. The constant is always in the model.
Candidates are compared in a fixed order, so equal columns cannot make the result depend on
chance, and on standardised values, so units (tokens or logits) cannot either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from im_assets.common.numbers import finite, numeric
from im_assets.rule.model import Step
from im_assets.rule.regression import (
    COLLINEAR,
    EXACT,
    Dropped,
    distinct_columns,
    is_constant,
    least_squares,
    unexplained,
    unexplained_by_rest,
)

Criterion = Literal["p_value", "aic", "bic"]
Direction = Literal["forward", "backward", "both"]
Model = tuple[str, ...]  # the indicators in a model, in candidate order


@dataclass(frozen=True)
class Selected:
    """The outcome: ``chosen`` in candidate order, the ``path`` to it, and what was ``dropped``."""

    chosen: Model
    path: tuple[Step, ...]
    dropped: dict[str, Dropped]

    @property
    def table(self) -> pd.DataFrame:
        """The path, one row a step."""
        return pd.DataFrame([s.model_dump() for s in self.path], columns=list(Step.model_fields))


def stepwise(
    table: pd.DataFrame,
    target: str,
    candidates: Sequence[str],
    *,
    criterion: Criterion = "p_value",
    direction: Direction = "both",
    p_enter: float = 0.05,
    p_remove: float = 0.10,
    max_indicators: int | None = None,
) -> Selected:
    """Choose the columns of ``table`` that enter the regression of ``target``.

    ``forward`` and ``both`` start from the constant, ``backward`` from all candidates. With
    ``p_value`` the best candidate enters below ``p_enter`` and the worst member leaves above
    ``p_remove``; with ``aic`` or ``bic`` the move that lowers it most is made. Constants and copies
    are dropped first. A column that is a combination of the model's does not enter it, and a
    backward search starts from columns that can be told apart (`_start`). The order of the
    candidates settles exact ties and nothing else.

    Raises ValueError for missing or non-finite values, or fewer than three rows.
    """
    y, rows = numeric(table, [target])[:, 0], len(table)
    if rows < 3:
        raise ValueError(f"stepwise selection needs at least 3 rows, found {rows}")
    columns, dropped = distinct_columns(table, candidates)
    if is_constant(y):
        columns = {}  # nothing to explain: every p-value would be one of rounding
    if direction == "backward":
        dropped |= _start(columns, y)
        columns = {name: column for name, column in columns.items() if name not in dropped}
    limit = indicator_limit(rows, max_indicators)
    search = _Search(y, columns, criterion, direction, p_enter, p_remove, limit)
    model = tuple(columns) if direction == "backward" else ()
    path = [Step.of_dropped(name, why) for name, why in dropped.items()]
    path.append(search.describe(Step(step=0, action="start"), model))
    visited = {model}
    # Entering and leaving use different thresholds, so no model should come twice; rounding at a
    # threshold could still make a cycle, and the search has to end in any case.
    while (move := search.next_move(model)) is not None and move.after not in visited:
        model = move.after
        step = Step(step=len(visited), action=move.action, indicator=move.name, p=move.p)
        path.append(search.describe(step, model))
        visited.add(model)
    return Selected(model, tuple(path), dropped)


def _start(columns: dict[str, np.ndarray], y: np.ndarray) -> dict[str, Dropped]:
    """What a backward search cannot start with: while columns depend on one another, or leave no
    degree of freedom, the one of these with the least correlation with ``y`` goes.

    Sure independence screening (Fan and Lv 2008, doi:10.1111/j.1467-9868.2008.00674.x): unlike
    keeping the first columns, it does not depend on their order.
    """
    left, dropped = dict(columns), {}
    strength = {name: _digits(abs(float(column @ y))) for name, column in columns.items()}
    rows = len(y)
    while left:
        many = len(left) > rows - 2
        names, x = list(left), np.column_stack([*left.values()])
        rest = np.zeros(len(left)) if many else unexplained_by_rest(x)
        dependent = [name for name, r in zip(names, rest, strict=True) if r <= COLLINEAR]
        if not dependent:
            break
        # Of equals the last: the first candidate stays, as everywhere.
        weakest = min(reversed(dependent), key=lambda name: strength[name])
        others = tuple(name for name in dependent if name != weakest)
        del left[weakest]
        dropped[weakest] = (
            Dropped("few_mixtures", others, rows) if many else Dropped("combination", others)
        )
    return dropped


def indicator_limit(rows: int, max_indicators: int | None) -> int:
    """Most indicators that may enter: the setting, else one for every five rows (at least one), and
    never so many that no degree of freedom is left."""
    return min(max_indicators or max(1, rows // 5), rows - 2)


@dataclass(frozen=True)
class _Fit:
    """What the search compares of a model; ``p`` and ``strength`` (|t|) follow its indicators."""

    p: np.ndarray
    strength: np.ndarray
    aic: float
    bic: float
    r2: float


@dataclass(frozen=True)
class _Move:
    """One indicator entering or leaving: its p and |t| in the larger of the two models."""

    action: Literal["enter", "remove"]
    name: str
    after: Model
    p: float
    strength: float


@dataclass(frozen=True)
class _Search:
    y: np.ndarray
    columns: dict[str, np.ndarray]
    criterion: Criterion
    direction: Direction
    p_enter: float
    p_remove: float
    limit: int
    fits: dict[Model, _Fit] = field(default_factory=dict)

    def next_move(self, model: Model) -> _Move | None:
        """The move that the criterion asks for; None: the search is over."""
        removals = self._removals(model) if self.direction != "forward" else []
        too_many = len(model) > self.limit  # only after a backward start
        if self.criterion == "p_value":
            # |t| orders moves as p does, without the ties of p-values that underflow to zero.
            weakest = min(removals, key=lambda m: _digits(m.strength), default=None)
            if weakest is not None and (too_many or weakest.p > self.p_remove):
                return weakest
            best = max(self._entries(model), key=lambda m: _digits(m.strength), default=None)
            return best if best is not None and best.p < self.p_enter else None
        moves = removals if too_many else removals + self._entries(model)
        best = min(moves, key=lambda m: _digits(self._information(m.after)), default=None)
        if best is None or too_many:
            return best
        return best if self._information(best.after) < self._information(model) - 1e-9 else None

    def describe(self, step: Step, model: Model) -> Step:
        """``step`` with the statistics of the model that it led to."""
        fit = self.fit(model)
        value = step.p if self.criterion == "p_value" else finite(self._information(model))
        numbers = {"aic": finite(fit.aic), "bic": finite(fit.bic), "r2": finite(fit.r2)}
        return step.model_copy(update={"value": value, **numbers})

    def fit(self, model: Model) -> _Fit:
        if model not in self.fits:
            x = np.array([self.columns[n] for n in model]).reshape(len(model), len(self.y)).T
            with np.errstate(divide="ignore", invalid="ignore"):  # an exact fit leaves no residual
                ols = least_squares(self.y, x)
                t, p = np.nan_to_num(ols.tvalues[1:]), np.nan_to_num(ols.pvalues[1:], nan=1.0)
                r2 = float(ols.rsquared) if model else 0.0
                self.fits[model] = _Fit(p, np.abs(t), float(ols.aic), float(ols.bic), r2)
        return self.fits[model]

    def _information(self, model: Model) -> float:
        return self.fit(model).bic if self.criterion == "bic" else self.fit(model).aic

    def _removals(self, model: Model) -> list[_Move]:
        return [self._move("remove", name, model) for name in model]

    def _entries(self, model: Model) -> list[_Move]:
        if self.direction == "backward" or len(model) >= self.limit:
            return []
        if 1 - self.fit(model).r2 < EXACT:
            return []  # fitted exactly: what is left is rounding
        order = list(self.columns)
        outside = [name for name in order if name not in model]
        if not outside:
            return []
        inside, new = (
            np.array([self.columns[n] for n in names]).reshape(len(names), len(self.y)).T
            for names in (model, outside)
        )
        return [
            self._move("enter", name, tuple(sorted((*model, name), key=order.index)))
            for name, rest in zip(outside, unexplained(new, inside), strict=True)
            if rest > COLLINEAR
        ]

    def _move(self, action: Literal["enter", "remove"], name: str, larger: Model) -> _Move:
        smaller = tuple(n for n in larger if n != name)
        fit, i = self.fit(larger), larger.index(name)
        after = larger if action == "enter" else smaller
        return _Move(action, name, after, float(fit.p[i]), float(fit.strength[i]))


def _digits(value: float) -> float:
    """``value`` to nine significant digits, so that rounding does not decide a tie: ``min`` and
    ``max`` give it to the first candidate."""
    return float(f"{value:.9g}")
