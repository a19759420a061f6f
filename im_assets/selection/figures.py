"""The size search as a figure: loss against size, the two methods in two colours."""

import pandas as pd

from im_assets.common.figures import BLUE, GREY, ORANGE, figure_png, new_figure


def size_figure(trials: pd.DataFrame) -> bytes:
    """Search loss (filled) and report loss (hollow) of every size, log scale, as a PNG.

    Args:
        trials: the table ``size_search``.
    """
    figure, (axes,) = new_figure(height=3.6)
    for method, color in (("grid", GREY), ("blend_search", BLUE)):
        mine = trials[trials["method"] == method].sort_values("size")
        axes.plot(mine["size"], mine["search_loss"], "o-", lw=1, color=color, label=method)
        axes.plot(mine["size"], mine["report_loss"], "o", color=color, markerfacecolor="white")
    chosen = trials[trials["chosen"]]
    axes.axvline(float(chosen["size"].iloc[0]), color=ORANGE, lw=1, label="chosen")
    axes.set_xscale("log")
    axes.set(
        title="filled: searched on · hollow: reported on",
        xlabel="examples selected",
        ylabel="evaluation loss (nats/token)",
    )
    axes.legend(frameon=False)
    return figure_png(figure)
