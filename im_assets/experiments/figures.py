"""Trials as figures: the training curve of one, and the measured losses of all."""

from collections.abc import Sequence

import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.charts.points import Reference, Series, points_chart
from im_assets.common.formatting import shown


def training_figure(losses: Sequence[float], title: str) -> Chart:
    """Training loss (nats per response token) against the optimizer step."""
    steps = list(range(1, len(losses) + 1))
    series = Series("", steps, losses, line="solid")
    label = "loss (nats/token)"
    return points_chart([series], "optimizer step", label, title, x_scale="whole", height=200)


def trial_losses_figure(
    table: pd.DataFrame,
    base: float | None,
    trials: str = "mixtures",
    target: str = "evaluation loss (nats per token)",
) -> Chart:
    """Every trial's loss in rising order, and the base model's own as a line.

    Args:
        table: ``partition`` and ``loss``, one row a trial.
        base: the loss of the base model, when it was measured. Where it would squeeze the trials,
            the chart says in which direction it lies.
    """
    ordered = table.sort_values(["loss", "partition"], ignore_index=True)
    losses = ordered["loss"].astype(float).tolist()
    texts = [f"{seed}: loss {shown(loss, 'loss')}"
             for seed, loss in zip(ordered["partition"], losses, strict=True)]  # fmt: skip
    series = Series(trials, list(range(1, len(losses) + 1)), losses, texts)
    fits = base is not None and _fits(base, losses)
    return points_chart(
        [series],
        f"{trials}, from the lowest loss to the highest",
        target,
        f"Evaluation loss of {len(losses)} {trials}",
        [] if base is None else [Reference(base, f"base model {shown(base, 'loss')}")],
        y_ends=[base] if base is not None and fits else (),
        x_scale="whole",
    )


def _fits(base: float, losses: Sequence[float]) -> bool:
    """Whether the axis can hold the base model without squeezing the trials."""
    room = 1.5 * (max(losses) - min(losses))
    return min(losses) - room <= base <= max(losses) + room
