"""Two views of the validation: strategies against random subsets, and loss over the deciles."""

from typing import cast

import pandas as pd

from im_assets.common.charts.look import Chart, Look
from im_assets.common.charts.panels import panels_chart
from im_assets.common.charts.points import Reference, Series, points_chart
from im_assets.common.charts.regression import regression_line
from im_assets.common.charts.rows import Band, Row, rows_chart
from im_assets.common.formatting import between, rows_of, shown
from im_assets.rule.target import PAPER, Target
from im_assets.validation.arms import BASE, RANDOM, WHOLE


def verdict_figure(
    verdicts: pd.DataFrame,
    runs: pd.DataFrame | None,
    target: Target = PAPER,
) -> Chart:
    """Mean measure (loss) of every strategy with its interval and its finetunes, one panel a size.

    The grey band is the interval of the mean of random subsets of the same size.

    Args:
        verdicts: as ``verdicts`` returns it.
        runs: as ``validation_runs`` returns it: the single finetunes.
    """
    # A strategy stands in the table once for each reference.
    once = verdicts[verdicts["against"].isna() | (verdicts["against"] == RANDOM)]
    sizes = sorted(set(map(int, once["size"])) - {WHOLE})
    panels = [_size(n, once[once["size"].isin([n, WHOLE])], runs, target) for n in sizes]
    return panels_chart(panels, 1)


def _size(size: int, part: pd.DataFrame, runs: pd.DataFrame | None, target: Target) -> Chart:
    band, rows, measure = None, [], target.measure
    names = {measure: "mean", f"{measure}_low": "low", f"{measure}_high": "high"}
    for r in rows_of(part.rename(columns=names)):
        singles: list[float] = []
        if runs is not None:
            mine = runs["kind"].isin(["strategy", "reference"]) & (runs["size"] == r.size)
            singles = runs.loc[mine & (runs["strategy"] == r.strategy), measure].tolist()
        base = r.verdict == "baseline"
        if r.strategy == RANDOM and r.low is not None and r.high is not None:
            band = Band(r.low, r.high, "random")
        interval = between(r.low, r.high, "loss")
        text = f"{r.strategy}: {shown(r.mean, 'loss')} ({interval}), {r.verdict}"
        look: Look = 2 if base else 1
        rows.append(Row(r.strategy, r.mean, r.low, r.high, text, look, singles))
    return rows_chart(rows, target.axis, f"{size:,} examples", band=band)


def decile_figure(deciles: pd.DataFrame, target: Target = PAPER) -> Chart:
    """Target (log loss) of finetunes on equal slices of the pool against their mean rule value."""
    x, y = (deciles[c].to_numpy(dtype=float) for c in ("predicted", target.column))
    texts = [
        f"slice {r.decile}: rule {shown(r.predicted)}, {target.label} {shown(r.target, 'loss')}"
        for r in rows_of(deciles.assign(target=y))
    ]
    series = [Series("", x.tolist(), y.tolist(), texts), *regression_line("", x, y)]
    label = "mean rule value of the slice"
    title = f"Does the {target.measure_label} follow the rule over the pool?"
    return points_chart(series, label, target.label, title)


def cost_figure(costs: pd.DataFrame, target: Target = PAPER) -> Chart:
    """The measure (loss) of each arm against all that it cost, one dot an arm.

    The base costs nothing, which a logarithmic axis has no place for: it is a line.

    Args:
        costs: as ``selection_costs`` returns it.
    """
    paid = costs[costs["total_flop"] > 0].rename(columns={target.measure: "mean"})
    several = paid["size"].nunique() > 1
    series = []
    for name, look, rows in (
        ("selected by the study's rule", 1, paid[paid["rule_flop"] > 0]),
        ("without a rule of its own", 0, paid[~(paid["rule_flop"] > 0)]),
    ):
        found = rows_of(rows)
        labels = [f"{r.strategy} {shown(r.size, 'int')}" if several else r.strategy for r in found]
        texts = [
            f"{label}: {shown(r.mean, 'loss')} for {shown(r.total_flop)} operations"
            for label, r in zip(labels, found, strict=True)
        ]
        x, y = rows["total_flop"].tolist(), rows["mean"].tolist()
        series.append(Series(name, x, y, texts, cast(Look, look), labels=labels))
    base = costs.loc[costs["strategy"] == BASE, target.measure].dropna()
    lines = [Reference(float(value), "base, not finetuned") for value in base]
    title = f"{target.measure_label.capitalize()} against what it cost"
    x_title = "operations of selection and training (FLOP)"
    return points_chart(
        series, x_title, target.axis, title, references=lines, x_scale="log", x_format=".0e"
    )
