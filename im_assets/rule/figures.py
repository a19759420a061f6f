"""Three views of a rule: how well it fits, what drives it, and the points behind each indicator.

The rule's target gives the column, and the words on the axes.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.charts.panels import panels_chart
from im_assets.common.charts.points import Series, points_chart
from im_assets.common.charts.rows import Row, rows_chart
from im_assets.common.formatting import between, shown
from im_assets.common.numbers import numeric
from im_assets.rule.choosing import keys_of
from im_assets.rule.fitting import rank_correlation
from im_assets.rule.model import Rule
from im_assets.rule.target import PAPER, Target
from im_assets.rule.transform import scale_of, scaled


def predictions(rule: Rule, table: pd.DataFrame) -> pd.DataFrame:
    """Columns ``partition``, ``actual``, ``fitted`` and ``left_out`` of each point: the target, its
    prediction, and that of a rule chosen and fitted without it (NaN for a published rule).

    Args:
        table: holds ``partition``, the target and the rule's indicators.
    """
    keys = keys_of(table)
    actual = numeric(table, [rule.predicts.column])[:, 0]
    rows = pd.DataFrame({"partition": keys, "actual": actual})
    rows["fitted"] = rule.predict_points(table)
    rows["left_out"] = keys.map(dict(rule.loo_predictions)).astype(float)
    return rows


def fit_figure(rule: Rule, table: pd.DataFrame) -> Chart:
    """Predicted against actual target of each mixture, and predicted without that mixture."""
    rows = predictions(rule, table)

    def series(column: str, name: str, look: int) -> Series:
        known = rows.dropna(subset=[column])
        texts = [
            f"{s}: actual {shown(a, 'loss')}, {column.replace('_', ' ')} {shown(v, 'loss')}"
            for s, a, v in zip(known["partition"], known["actual"], known[column], strict=True)
        ]
        values = known["actual"].tolist(), known[column].tolist()
        return Series(name, *values, texts, 2 if look else 0)

    ends = [rows["actual"].min(), rows["actual"].max()]
    numbers = ["not beyond chance"] if rule.beyond_chance is False else []
    numbers.append(f"n = {len(table)}")
    if rule.r2 is not None:
        numbers.append(f"R² = {rule.r2:.2f}")
    if rule.loo_spearman is not None:
        span = between(rule.loo_spearman_low, rule.loo_spearman_high, "two")
        known = rule.loo_spearman_low is not None
        numbers.append(
            f"Spearman of those left out = {rule.loo_spearman:.2f}{f', {span}' if known else ''}"
        )
    return points_chart(
        [
            series("left_out", "predicted without it", 2),
            series("fitted", "predicted", 0),
            Series("exact", ends, ends, look=2, points=False, line="dashed"),
        ],
        f"actual {rule.predicts.label}",
        f"predicted {rule.predicts.label}",
        f"The rule on its mixtures ({', '.join(numbers)})",
    )


def coefficient_figure(rule: Rule, table: pd.DataFrame) -> Chart | None:
    """Effect of each indicator on the target per standard deviation over the mixtures of ``table``.

    Standardised, because raw coefficients carry the units of their indicators. Intervals are drawn
    where the rule has them (a published rule has none). None where no straight term entered.
    """
    if not rule.coefficients:
        return None
    names = [term.name for term in rule.coefficients]
    spreads = numeric(table, names).std(axis=0, ddof=1)
    rows = []
    for term, spread in zip(rule.coefficients, map(float, spreads), strict=True):
        low, high = (None if v is None else v * spread for v in (term.ci_low, term.ci_high))
        effect = term.estimate * spread
        text = f"{term.name}: {shown(effect)} ({between(low, high)})"
        rows.append(Row(term.name, effect, low, high, text))
    doubt = ", of a rule not beyond chance" if rule.beyond_chance is False else ""
    level = f", {rule.confidence:.0%} intervals" if rule.confidence else ""
    return rows_chart(
        rows,
        f"change of {rule.predicts.label} ({rule.predicts.better_side} is better)",
        f"Effect of one standard deviation{level}{doubt}",
        zero=True,
    )


def curve_figure(rule: Rule) -> Chart | None:
    """What each indicator with a curve adds to the target over the range of the points, one small
    panel each; None where the rule has no curve."""
    if not rule.curves:
        return None
    panels = []
    for curve in rule.curves:
        x = np.linspace(curve.low, curve.high, 81)
        y = curve.bend.of(x)
        texts = [
            f"{curve.name} {shown(a)}: {shown(b, 'signed')}" for a, b in zip(x, y, strict=True)
        ]
        line = Series("", x.tolist(), y.tolist(), texts, points=False, line="solid")
        label = f"mean {scaled(curve.name, rule.transform)}"
        panels.append(
            points_chart([line], label, f"adds to {rule.predicts.label}", curve.name, height=150)
        )
    return panels_chart(panels, 3)


def indicator_figure(
    table: pd.DataFrame,
    indicators: Sequence[str],
    chosen: Sequence[str],
    target: Target = PAPER,
) -> Chart:
    """The target against each indicator, one small panel each; those in the rule are blue.

    ρ is the rank correlation over the mixtures.
    """
    y = numeric(table, [target.column])[:, 0]
    names, scale = keys_of(table), scale_of(table)
    panels = []
    for name in indicators:
        x = numeric(table, [name])[:, 0]
        rho = rank_correlation(y, x)
        texts = [
            f"{seed}: {name} {shown(a)}, {target.label} {shown(b, 'loss')}"
            for seed, a, b in zip(names, x, y, strict=True)
        ]
        points = Series("", x.tolist(), y.tolist(), texts, 0 if name in chosen else 2)
        label = f"mean {scaled(name, scale)}" + (
            "" if rho is None else f" (ρ = {shown(rho, 'two')})"
        )
        panels.append(points_chart([points], label, target.label, name, height=150))
    return panels_chart(panels, 3)
