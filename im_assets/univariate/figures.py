"""The paper's univariate figure: indicator against loss, mixtures and bins in two colours."""

import math

import pandas as pd

from im_assets.common.figures import BLUE, GREY, ORANGE, figure_png, new_figure


def univariate_figure(bins: pd.DataFrame, mixtures: pd.DataFrame) -> bytes:
    """One panel an indicator, as a PNG.

    Args:
        bins: as ``bin_table`` returns it.
        mixtures: indicator_table: one column an indicator, and log_loss.
    """
    names = list(bins["indicator"].unique())
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = new_figure(rows, columns, height=1.2 + 2.9 * rows)
    for place, name in zip(axes, names, strict=False):
        mine = bins[bins["indicator"] == name].sort_values("mean")
        place.scatter(mixtures[name], mixtures["log_loss"], s=22, color=BLUE, alpha=0.7)
        place.plot(mine["mean"], mine["log_loss"], color=ORANGE, marker="o", markersize=5, lw=1)
        place.set_title(name, loc="left")
    for place in axes[len(names) :]:
        place.set_visible(False)
    for place in axes[::columns]:
        place.set_ylabel("log loss", color=GREY)
    axes[0].legend(["random mixtures", "bins"], frameon=False, fontsize=10)
    return figure_png(figure)
