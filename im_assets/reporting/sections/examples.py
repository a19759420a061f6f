"""The selection: how it differs from the pool, and examples from both ends."""

from typing import Any

import pandas as pd

from im_assets.reporting.blocks import (
    Block,
    Column,
    Excerpt,
    Excerpts,
    Fact,
    Facts,
    Figure,
    Section,
    Table,
    Text,
)
from im_assets.reporting.gather import Gathered
from im_assets.reporting.numbers import plain, rows_of, shown
from im_assets.reporting.row_chart import Row, RowChart
from im_assets.reporting.sections.absent import not_made

KEY, TITLE = "selection", "What was selected"
EXCERPT, SHOWN = 300, 5
WITHOUT_ROWS = "Examples are left out: this copy of the report holds no row of the data."


def section(found: Gathered, with_rows: bool) -> Section:
    """Size and tilt of the selection; with rows, its best and last, and the pool's worst."""
    selection = found.get("dolly_selection")
    if selection is None:
        return not_made(KEY, TITLE, "dolly_selection")
    facts = [
        Fact("selected", "examples selected", len(selection), "int"),
        Fact("best", "lowest predicted log loss", selection["predicted_log_loss"].min(), "loss"),
        Fact("last", "highest in it", selection["predicted_log_loss"].max(), "loss"),
    ]
    blocks: list[Block] = [Facts(tuple(facts)), *_tilt(found)]
    if not with_rows:
        return Section(KEY, TITLE, (*blocks, Text(WITHOUT_ROWS)))
    ordered = selection.sort_values("rank")
    names = found.indicators
    blocks.append(_excerpts("best", "First of the selection", ordered.head(SHOWN), names))
    if len(ordered) > SHOWN:
        rest = ordered.iloc[SHOWN:].tail(SHOWN)
        blocks.append(_excerpts("last", "Last that still came in", rest, names))
    if found.worst is not None and len(found.worst):
        blocks.append(_excerpts("worst", "Worst of the pool by the rule", found.worst, names))
    return Section(KEY, TITLE, tuple(blocks))


def _tilt(found: Gathered) -> list[Block]:
    means = found.get("selected_means")
    if means is None:
        return []
    means = means.assign(shift=(means["selected"] - means["pool"]) / means["pool_sd"])
    order = [i for i in found.study.scoring.indicators if i in set(means["indicator"])]
    means = means.set_index("indicator").reindex(order).reset_index()
    rows = tuple(
        Row(str(r.indicator), plain(r.shift), text=f"{r.indicator}: {shown(r.selected)} against "
            f"{shown(r.pool)} in the pool", look=1)
        for r in rows_of(means)
    )  # fmt: skip
    columns = (
        Column("indicator", "Indicator", "text"),
        Column("selected", "Mean of the selection"),
        Column("pool", "Mean of the pool"),
        Column("pool_sd", "The pool's spread"),
        Column("shift", "Difference in spreads", "two"),
    )
    return [
        Figure(
            "tilt",
            "How the selection differs from the pool",
            "Difference of means, selection against pool, in the pool's standard deviations.",
            "One row an indicator: how far the selection's mean lies from the pool's, in standard "
            "deviations over the pool's examples. It shows what the selection prefers, also "
            "through indicators that the rule does not read; not that this is better.",
            (RowChart("standard deviations from the pool's mean", rows, zero=True),),
            data=Table.of("tilt", "Means of selection and pool", columns, means, True),
        )
    ]


def _excerpts(key: str, caption: str, rows: pd.DataFrame, names: list[str]) -> Excerpts:
    return Excerpts(key, caption, tuple(_excerpt(r, names) for r in rows.to_dict("records")))


def _excerpt(row: dict[Any, Any], names: list[str]) -> Excerpt:
    heading = f"Rank {row['rank']}" if "rank" in row else str(row["example_id"])
    texts = (("instruction", "instruction"), ("input", "input"), ("output", "response"))
    parts = [(name, cut(str(row[key]))) for key, name in texts if plain(row.get(key))]
    if plain(row.get("category")):
        parts.append(("category", cut(str(row["category"]))))
    numbers = [Fact("predicted_log_loss", "predicted log loss", row["predicted_log_loss"], "loss")]
    numbers += [Fact(name, name, row[name]) for name in names if name in row]
    return Excerpt(heading, tuple(parts), tuple(numbers))


def cut(text: str, most: int = EXCERPT) -> str:
    """One line of at most ``most`` characters, without characters that do not print."""
    line = " ".join(text.split())
    line = "".join(c for c in line if c.isprintable())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
