"""The paper's univariate figure: indicator against loss, mixtures and bins in two colours."""

import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.charts.panels import panels_chart
from im_assets.common.charts.points import Series, points_chart
from im_assets.common.charts.regression import regression_line
from im_assets.common.formatting import shown
from im_assets.rule.target import PAPER, Target
from im_assets.rule.transform import scale_of, scaled


def univariate_figure(
    bins: pd.DataFrame,
    mixtures: pd.DataFrame | None,
    target: Target = PAPER,
) -> Chart:
    """One panel an indicator: the mixtures, the bins, and a line fitted to the bins, all on the
    scale that the mixtures' indicators are on.

    Args:
        bins: as ``bin_table`` returns it.
        mixtures: the points of random mixtures: ``partition``, a column an indicator, the target's.
        target: of the rule; both tables have its column.
    """
    panels = [
        _panel(str(name), part, mixtures, target)
        for name, part in bins.groupby("indicator", sort=False)
    ]
    return panels_chart(panels, 3)


def _panel(name: str, bins: pd.DataFrame, mixtures: pd.DataFrame | None, target: Target) -> Chart:
    series, column, label = [], target.column, target.label
    axis, mean = name, "mean"
    if mixtures is not None:
        axis, mean = scaled(name, scale_of(mixtures)), "scaled_mean"
    if mixtures is not None and name in mixtures:
        x, y = mixtures[name].astype(float).tolist(), mixtures[column].astype(float).tolist()
        texts = [
            f"{seed}: {axis} {shown(a)}, {label} {shown(b, 'loss')}"
            for seed, a, b in zip(mixtures["partition"], x, y, strict=True)
        ]
        series.append(Series("mixtures", x, y, texts))
    means, targets = (bins[c].to_numpy(dtype=float) for c in (mean, column))
    texts = [
        f"bin {number}: {axis} {shown(a)}, {label} {shown(b, 'loss')}"
        for number, a, b in zip(bins["bin"], means, targets, strict=True)
    ]
    series.append(Series("bins", means.tolist(), targets.tolist(), texts, 1))
    series += regression_line("bins", means, targets, look=1)
    return points_chart(series, f"mean {axis}", label, name, height=180)
