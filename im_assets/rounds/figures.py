"""The error of every round's rule where it selects, as a figure."""

import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.charts.rows import Row, rows_chart
from im_assets.common.formatting import between, rows_of, shown
from im_assets.rule.target import Target


def rounds_figure(table: pd.DataFrame, target: Target) -> Chart | None:
    """The error of each round with its interval, and over the rule's own sets; None where no round
    was made.

    Args:
        table: as ``telling.rounds_table`` gives it.
    """
    rows = []
    for r in rows_of(table[~table["stopped"].astype(bool)]):
        interval = between(r.rmse_low, r.rmse_high, "loss")
        text = f"round {r.round}, all sets: {shown(r.rmse, 'loss')} ({interval})"
        rows.append(Row(f"round {r.round}", r.rmse, r.rmse_low, r.rmse_high, text, look=1))
        own = f"round {r.round}, rule's own"
        rows.append(Row(own, r.rule_rmse, text=f"{own}: {shown(r.rule_rmse, 'loss')}"))
    if not rows:
        return None
    return rows_chart(rows, f"root mean squared error, {target.label}", zero=True)
