"""The paper's univariate figure: indicator against loss, mixtures and bins in two colours."""

import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.charts.panels import panels_chart
from im_assets.common.charts.points import Series, points_chart
from im_assets.common.charts.regression import regression_line
from im_assets.common.formatting import rows_of, shown


def univariate_figure(
    bins: pd.DataFrame,
    mixtures: pd.DataFrame | None,
    target: str = "log loss",
    column: str = "log_loss",
) -> Chart:
    """One panel an indicator: the mixtures, the bins, and a line fitted to the bins.

    Args:
        bins: as ``bin_table`` returns it.
        mixtures: the points of random mixtures: ``partition``, a column an indicator, the target's.
        target, column: how the target is called, and where it stands in both tables.
    """
    panels = [
        _panel(str(name), part, mixtures, target, column)
        for name, part in bins.groupby("indicator", sort=False)
    ]
    return panels_chart(panels, 3)


def _panel(
    name: str, bins: pd.DataFrame, mixtures: pd.DataFrame | None, target: str, column: str
) -> Chart:
    series = []
    if mixtures is not None and name in mixtures:
        x, y = mixtures[name].astype(float).tolist(), mixtures[column].astype(float).tolist()
        texts = [
            f"{seed}: {name} {shown(a)}, {target} {shown(b, 'loss')}"
            for seed, a, b in zip(mixtures["partition"], x, y, strict=True)
        ]
        series.append(Series("mixtures", x, y, texts))
    rows = rows_of(bins[["bin", "mean"]].assign(target=bins[column]))
    texts = [f"bin {r.bin}: {name} {shown(r.mean)}, {target} {shown(r.target, 'loss')}"
             for r in rows]  # fmt: skip
    series.append(Series("bins", [r.mean for r in rows], [r.target for r in rows], texts, 1))
    means, targets = (bins[c].to_numpy(dtype=float) for c in ("mean", column))
    series += regression_line("bins", means, targets, look=1)
    return points_chart(series, f"mean {name}", target, name, height=180)
