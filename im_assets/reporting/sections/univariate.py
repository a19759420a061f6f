"""The univariate study: indicator against loss, random mixtures and bins in two colours."""

from im_assets.common.formatting import plain
from im_assets.reporting.blocks import Column, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import lacking, not_in_profile, not_made
from im_assets.reporting.sections.columns import measured_on, target_columns
from im_assets.univariate.figures import univariate_figure

KEY, TITLE = "univariate", "One indicator at a time"
SIGNS = {1: "rises", -1: "falls"}


def section(found: Gathered) -> Section:
    """One panel an indicator, and the correlations against the paper's signs."""
    if found.study.univariate is None:
        what = "no model was finetuned on bins of a single indicator."
        return not_in_profile(KEY, TITLE, "univariate", what)
    if missing := lacking(found, "univariate_study", "univariate_bins"):
        return not_made(KEY, TITLE, *missing)
    target = found.target
    bins, table = found.tables["univariate_bins"], found.tables["univariate_study"]
    rows = table.assign(
        paper=[SIGNS.get(plain(s) or 0, "not named") for s in table["paper_sign"]],
        here=table["agrees"].map({True: "agrees", False: "contradicts"}).fillna("–"),
        note=table["note"].fillna(""),
    )
    compared = rows.dropna(subset=["agrees"])
    agrees = compared["agrees"].astype(bool)
    against = ", ".join(compared.loc[~agrees, "indicator"])
    summary = (
        f"Indicators: {len(rows)}. With a clear direction where the paper names one: "
        f"{len(compared)}; with the paper's own direction: {int(agrees.sum())}"
        + (f". Contradicting it: {against}." if against else ".")
    )
    figure = Figure(
        "univariate",
        f"{target.measure_label.capitalize()} against each indicator",
        f"{target.title} against the mean of each indicator, over random mixtures and over bins.",
        "The pool is sorted by one indicator and cut into bins, and a model is finetuned on each "
        "(orange diamonds). Random mixtures (blue) lie close together, since mixing averages "
        "indicators out. The line is fitted to the bins, with its 95 % band. A slope may stem from "
        "another indicator that changes along with this one.",
        univariate_figure(bins, found.mixtures, target),
        data=Table.of(
            "univariate_bin_rows",
            "Every bin",
            (
                Column("indicator", "Indicator", "text"),
                Column("bin", "Bin", "int"),
                Column("examples", "Examples", "int"),
                Column("mean", "Mean"),
                *target_columns(found, with_unit=False),
            ),
            bins,
            True,
        ),
    )
    columns = (
        Column("indicator", "Indicator", "text"),
        Column("bins", "Bins", "int"),
        Column("pearson", "Pearson", "two"),
        Column("pearson_low", "from", "two"),
        Column("pearson_high", "to", "two"),
        Column("spearman", "Spearman", "two"),
        Column("spearman_low", "from", "two"),
        Column("spearman_high", "to", "two"),
        Column("paper", "Loss in the paper", "text"),
        Column("here", "Here", "text"),
        Column("note", "In words", "text"),
    )
    correlations = Table.of(
        "univariate_correlations",
        f"Correlation of a bin's mean with its {target.label}",
        columns,
        rows,
    )
    return Section(KEY, TITLE, (Text(summary, "answer"), *measured_on(bins), figure, correlations))
