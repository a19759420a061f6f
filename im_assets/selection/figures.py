"""The selection as figures: its rule values, its tilt against the pool, and the size search."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from im_assets.common.charts.densities import densities_chart
from im_assets.common.charts.look import Chart
from im_assets.common.charts.points import Reference, Series, points_chart
from im_assets.common.charts.rows import Row, rows_chart
from im_assets.common.formatting import rows_of, shown
from im_assets.rule.target import PAPER, Target

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def distribution_figure(pool: "ArrayLike", selected: "ArrayLike", target: Target = PAPER) -> Chart:
    """Densities of the rule's values over the pool and over what is selected of it."""
    groups = {"whole pool": pool, "selected": selected}
    return densities_chart(groups, f"predicted {target.label}", "The rule over the pool")


def tilt_figure(means: pd.DataFrame) -> Chart:
    """How far the selection's means lie from the pool's, in standard deviations over the pool.

    Args:
        means: ``indicator``, ``selected``, ``pool`` (means) and ``shift``, in the order drawn.
    """
    rows = [
        Row(r.indicator, r.shift, look=1,
            text=f"{r.indicator}: {shown(r.selected)} against {shown(r.pool)} in the pool")
        for r in rows_of(means)
    ]  # fmt: skip
    title = "How the selection differs from the pool"
    return rows_chart(rows, "standard deviations from the pool's mean", title, zero=True)


def size_figure(
    trials: pd.DataFrame,
    methods: Sequence[str] = ("blend_search", "grid"),
    target: Target = PAPER,
) -> Chart:
    """Measure (loss) of every size on the half of the evaluation set that was not searched on.

    Args:
        trials: the table ``size_search``.
    """
    series = []
    for look, method in enumerate(methods):
        mine = rows_of(trials[trials["method"] == method].sort_values("size"))
        texts = [f"{method}, trial {r.trial}: {shown(r.size, 'int')} examples, searched on "
                 f"{shown(r.search_loss, 'loss')}, reported {shown(r.report_loss, 'loss')}"
                 for r in mine]  # fmt: skip
        x, y = [r.size for r in mine], [r.report_loss for r in mine]
        series.append(Series(method, x, y, texts, 1 if look else 0, line="solid"))
    chosen = trials.loc[trials["chosen"].astype(bool), "size"].unique()
    lines = [Reference(float(size), "chosen", "x") for size in chosen]
    title = f"{target.measure_label.capitalize()} against the size of the selection"
    label = target.axis.removeprefix("evaluation ")
    return points_chart(series, "examples selected", label, title, lines, x_scale="log")
