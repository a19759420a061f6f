"""Two views of the validation: strategies against the random band, and loss over the deciles."""

import pandas as pd

from im_assets.common.figures import BLUE, GREY, ORANGE, figure_png, new_figure


def verdict_figure(verdicts: pd.DataFrame, noise: pd.DataFrame) -> bytes:
    """Mean loss of every strategy with its 95 % interval, one panel a size, as a PNG.

    The grey band is one standard deviation of single random finetunes around their mean.
    """
    sizes = sorted(verdicts["size"].unique())
    rows = len(verdicts) / len(sizes)
    figure, axes = new_figure(len(sizes), 1, height=1.0 + (0.8 + 0.45 * rows) * len(sizes))
    for place, size in zip(axes, sizes, strict=True):
        mine = verdicts[verdicts["size"] == size].iloc[::-1]
        floor = noise[(noise["size"] == size) & (noise["source"] == "random subset")].iloc[0]
        place.axvspan(floor["mean"] - floor["sd"], floor["mean"] + floor["sd"], color="#e2e8f0")
        place.axvline(floor["mean"], color=GREY, lw=1)
        for row, arm in enumerate(mine.to_dict("records")):
            color = {"better": BLUE, "worse": ORANGE}.get(arm["verdict"], GREY)
            place.plot([arm["loss_low"], arm["loss_high"]], [row, row], color=color, lw=2)
            place.plot(arm["loss"], row, "o", color=color)
        place.set_yticks(range(len(mine)), mine["strategy"])
        place.set_title(f"{size} examples", loc="left")
    axes[-1].set_xlabel("evaluation loss")
    return figure_png(figure)


def decile_figure(deciles: pd.DataFrame) -> bytes:
    """Loss of finetunes on slices of the pool, by the rule's value, as a PNG."""
    figure, (axes,) = new_figure(height=3.6)
    axes.plot(deciles["decile"], deciles["loss"], color=BLUE, marker="o")
    axes.set(xlabel="decile of the pool, 1 = lowest rule values", ylabel="evaluation loss")
    return figure_png(figure)
