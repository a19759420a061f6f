"""The paper's figure: how often the first model's answer wins, ties and loses."""

from im_assets.common.figures import BLUE, ORANGE, figure_png, new_figure
from im_assets.judging.verdicts import OUTCOMES, Tally


def outcome_figure(tally: Tally, first: str, second: str, judge: str) -> bytes:
    """One bar of the judged pairs, cut into win, tie and lose; a line shows the interval of the
    shares of wins (from the left) and of losses (from the right). As a PNG."""
    figure, (axes,) = new_figure(height=2.8)
    left, labels = 0.0, {"win": f"{first} wins", "tie": "tie", "lose": f"{second} wins"}
    for name, color in zip(OUTCOMES, (BLUE, "#cbd5e1", ORANGE), strict=True):
        rate = tally.shares[name]
        share = rate.share or 0.0
        axes.barh([0], [share], left=left, height=0.5, color=color, label=labels[name])
        if share >= 0.06:
            text = f"{share:.0%}\n({rate.count})"
            ink = "black" if name == "tie" else "white"
            axes.text(left + share / 2, 0, text, ha="center", va="center", color=ink)
        left += share
    wins, losses = tally.shares["win"], tally.shares["lose"]
    if wins.low is not None and wins.high is not None:
        axes.plot([wins.low, wins.high], [0.34, 0.34], color=BLUE, lw=2)
    if losses.low is not None and losses.high is not None:
        axes.plot([1 - losses.high, 1 - losses.low], [-0.34, -0.34], color=ORANGE, lw=2)
    judged = sum(rate.count for rate in tally.shares.values())
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[], xlabel=f"share of {judged} judged pairs")
    axes.set_title(f"{first} against {second}, judged by {judge}", loc="left")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    figure.legend(ncols=3, loc="outside lower center", frameon=False)
    return figure_png(figure)
