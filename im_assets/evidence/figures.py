"""Three views of the evidence: the learning curve, how often indicators are chosen, and the null of
R². Each returns the bytes of a PNG, or None where its section is empty."""

import pandas as pd

from im_assets.common.figures import BLUE, GREY, INK, ORANGE, figure_png, new_figure


def learning_curve_figure(findings: pd.DataFrame) -> bytes | None:
    """Spearman on unseen mixtures against the number of mixtures that the rule was fitted on."""
    rows = findings[(findings["section"] == "learning_curve") & (findings["item"] == "spearman")]
    if rows.empty:
        return None
    figure, (axes,) = new_figure(height=4.5)
    x, y = rows["x"].to_numpy(float), rows["value"].to_numpy(float)
    low, high = rows["low"].to_numpy(float), rows["high"].to_numpy(float)
    axes.axhline(0, color=GREY, lw=1.2)
    axes.fill_between(x, low, high, color=BLUE, alpha=0.12, label="spread over splits")
    axes.plot(x, y, color=BLUE, marker="o", label="mean")
    axes.set_title("Would more mixtures help?", loc="left")
    axes.set_xlabel("mixtures that the rule was fitted on")
    axes.set_ylabel("Spearman on unseen mixtures")
    axes.legend(frameon=False, loc="lower right")
    return figure_png(figure)


def inclusion_figure(findings: pd.DataFrame) -> bytes | None:
    """How often each indicator is chosen when the mixtures are resampled, with its interval."""
    rows = findings[findings["section"] == "inclusion"].sort_values("value", kind="stable")
    if rows.empty:
        return None
    figure, (axes,) = new_figure(height=1.4 + 0.42 * len(rows))
    places = range(len(rows))
    colors = [BLUE if verdict == "in_rule" else GREY for verdict in rows["verdict"]]
    axes.barh(places, rows["value"].to_numpy(float), color=colors, alpha=0.8, height=0.6)
    axes.hlines(
        places, rows["low"].to_numpy(float), rows["high"].to_numpy(float), color=INK, lw=1.5
    )
    axes.set_yticks(places, list(rows["item"]), color=INK)
    axes.set_xlim(0, 1)
    axes.set_title("How often each indicator is chosen (blue: in the rule)", loc="left")
    axes.set_xlabel("share of bootstrap resamples")
    axes.grid(axis="y", visible=False)
    return figure_png(figure)


def permutation_figure(findings: pd.DataFrame) -> bytes | None:
    """The observed fit and what shuffled losses reach, for R² and its leave-one-out form."""
    rows = findings[findings["section"] == "permutation"]
    if rows.empty:
        return None
    figure, (axes,) = new_figure(height=2.6)
    places = range(len(rows))
    low, high, value = (rows[name].to_numpy(float) for name in ("low", "high", "value"))
    axes.hlines(places, low, high, GREY, lw=9, alpha=0.5, label="shuffled losses, 5 to 95 %")
    axes.scatter(value, places, s=90, color=ORANGE, zorder=3, label="this study")
    p = f"p = {rows['p'].iloc[0]:.3g}"
    axes.set_title(f"Does chance alone fit as well?   {p}", loc="left")
    axes.set_yticks(places, ["R²", "leave-one-out R²"][: len(rows)], color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(axis="y", visible=False)
    return figure_png(figure)
