"""Trials as figures: the training curve of one, and what was measured of all."""

from collections.abc import Sequence

import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.charts.points import Reference, Series, points_chart
from im_assets.common.formatting import shown
from im_assets.rule.target import PAPER, Target


def training_figure(losses: Sequence[float], title: str) -> Chart:
    """Training loss (nats per response token) against the optimizer step."""
    steps = list(range(1, len(losses) + 1))
    series = Series("", steps, losses, line="solid")
    label = "loss (nats/token)"
    return points_chart([series], "optimizer step", label, title, x_scale="whole", height=200)


def trial_values_figure(
    table: pd.DataFrame, base: float | None, trials: str = "mixtures", target: Target = PAPER
) -> Chart:
    """Every trial's measure (loss) in rising order, and the base model's own as a line.

    Args:
        table: ``partition`` and the target's measure, one row a trial.
        base: the measure of the base model, when it was taken. Where it would squeeze the trials,
            the chart says in which direction it lies.
    """
    ordered, what = table.sort_values([target.measure, "partition"]), target.measure_label
    values = ordered[target.measure].astype(float).tolist()
    texts = [f"{seed}: {what} {shown(value, 'loss')}"
             for seed, value in zip(ordered["partition"], values, strict=True)]  # fmt: skip
    series = Series(trials, list(range(1, len(values) + 1)), values, texts)
    fits = base is not None and _fits(base, values)
    return points_chart(
        [series],
        f"{trials}, from the lowest {what} to the highest",
        target.axis,
        f"{target.noun.capitalize()} of {len(values)} {trials}",
        [] if base is None else [Reference(base, f"base model {shown(base, 'loss')}")],
        y_ends=[base] if base is not None and fits else (),
        x_scale="whole",
    )


def _fits(base: float, values: Sequence[float]) -> bool:
    """Whether the axis can hold the base model without squeezing the trials."""
    room = 1.5 * (max(values) - min(values))
    return min(values) - room <= base <= max(values) + room
