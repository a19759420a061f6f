"""What a share of each source is worth, as a figure."""

import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.charts.rows import Row, rows_chart
from im_assets.common.formatting import between, rows_of, shown
from im_assets.rule.target import Target


def shares_figure(found: pd.DataFrame, target: Target) -> Chart | None:
    """The effect of a tenth more of each source, with its interval; None where none is known.

    Args:
        found: as `telling.shares_table` gives it.
    """
    known = found.dropna(subset=["effect"])
    if known.empty:
        return None
    ordered = known.sort_values("effect", ascending=target.sign > 0)
    rows = [
        Row(
            str(row.source),
            row.effect,
            row.effect_low,
            row.effect_high,
            f"{row.source}: {shown(row.effect, 'signed')} "
            f"{between(row.effect_low, row.effect_high, 'signed')}",
            look=1 if row.verdict in ("better", "worse") else 0,
        )
        for row in rows_of(ordered)
    ]
    return rows_chart(rows, f"change of {target.label} by 10 % more of the source", zero=True)
