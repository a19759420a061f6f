"""Three views of a rule: how well it fits, what drives it, and the points behind each indicator.

Each function returns the bytes of a PNG, 900 px wide.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from im_assets.common.figures import BLUE, GREY, INK, ORANGE, figure_png, new_figure
from im_assets.common.numbers import numeric
from im_assets.rule.choosing import keys_of
from im_assets.rule.fitting import TARGET, rank_correlation
from im_assets.rule.model import Rule

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def fit_figure(rule: Rule, table: pd.DataFrame) -> bytes:
    """Predicted against actual log loss of each mixture, and predicted without that mixture.

    ``table`` holds ``seed``, ``log_loss`` and the rule's indicators; the left-out predictions come
    from the rule and are missing for a published one.
    """
    figure, (axes,) = new_figure(height=6)
    actual = numeric(table, [TARGET])[:, 0]
    fitted = rule.predict(table)
    axes.axline((actual[0], actual[0]), slope=1, color=GREY, lw=1.2, ls="--", label="identity")
    if rule.loo_predictions:
        left_out = keys_of(table).map(rule.loo_predictions).to_numpy(dtype=float)
        axes.vlines(actual, fitted, left_out, color=ORANGE, lw=0.8, alpha=0.4)
        axes.scatter(
            actual, left_out, s=42, facecolors="white", edgecolors=ORANGE, label="left out"
        )
    axes.scatter(actual, fitted, s=42, color=BLUE, alpha=0.85, label="fitted", zorder=3)
    numbers = [f"n = {len(table)}"]
    if rule.r2 is not None:
        numbers.append(f"R² = {rule.r2:.2f}")
    if rule.loo_spearman is not None:
        numbers.append(f"leave-one-out Spearman = {rule.loo_spearman:.2f}")
    axes.set_title(f"The rule on its mixtures ({', '.join(numbers)})", loc="left")
    axes.set_xlabel("actual log loss")
    axes.set_ylabel("predicted log loss")
    axes.legend(frameon=False, loc="upper left")
    return figure_png(figure)


def coefficient_figure(rule: Rule, table: pd.DataFrame) -> bytes:
    """Effect of each indicator in log loss per standard deviation over the mixtures of ``table``.

    Standardised, because raw coefficients carry the units of their indicators. Intervals are drawn
    where the rule has them (a published rule has none).
    """
    height = 2.2 + 0.6 * max(1, len(rule.coefficients))
    figure, (axes,) = new_figure(height=height)
    axes.axvline(0, color=GREY, lw=1.2)
    spreads = numeric(table, rule.indicators).std(axis=0, ddof=1)
    for row, (term, spread) in enumerate(zip(rule.coefficients, spreads, strict=True)):
        if term.ci_low is not None and term.ci_high is not None:
            ends = np.array([term.ci_low, term.ci_high]) * spread
            axes.plot(ends, [row, row], color=BLUE, lw=3, alpha=0.35, solid_capstyle="round")
        axes.scatter(term.estimate * spread, row, s=70, color=BLUE, zorder=3)
    axes.set_yticks(range(len(rule.coefficients)), rule.indicators, color=INK)
    axes.set_ylim(max(1, len(rule.coefficients)) - 0.5, -0.5)
    if not rule.coefficients:
        axes.text(0.5, 0.5, "no indicator entered", transform=axes.transAxes, ha="center")
    level = f", {rule.confidence:.0%} intervals" if rule.confidence and rule.coefficients else ""
    axes.set_title(f"Effect of one standard deviation{level}", loc="left")
    axes.set_xlabel("change of log loss (left is better data)")
    axes.grid(axis="y", visible=False)
    return figure_png(figure)


def indicator_figure(
    table: pd.DataFrame, indicators: Sequence[str], chosen: Sequence[str]
) -> bytes:
    """Log loss against each indicator, one small panel each; those in the rule are blue."""
    columns = min(3, max(1, len(indicators)))
    rows = max(1, -(-len(indicators) // columns))
    figure, panels = new_figure(rows, columns, height=0.6 + 2.6 * rows)
    y = numeric(table, [TARGET])[:, 0]
    for axes, name in zip(panels, indicators, strict=False):
        _panel(axes, numeric(table, [name])[:, 0], y, name, BLUE if name in chosen else GREY)
    for axes in panels[len(indicators) :]:
        axes.set_visible(False)
    figure.supylabel("log loss", fontsize=12, color=INK)
    return figure_png(figure)


def _panel(axes: "Axes", x: np.ndarray, y: np.ndarray, name: str, color: str) -> None:
    axes.scatter(x, y, s=22, color=color, alpha=0.75)
    rho = rank_correlation(y, x)
    axes.set_title(name if rho is None else f"{name}   ρ = {rho:+.2f}", fontsize=12, loc="left")
    axes.tick_params(labelsize=10)
    axes.locator_params(nbins=4)
