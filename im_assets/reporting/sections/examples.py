"""The selection: how it differs from the pool, and examples from both ends."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from im_assets.candidates.tracing import Place
from im_assets.common.formatting import plain
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
from im_assets.reporting.gather import Gathered, PoolTables
from im_assets.reporting.sections.absent import not_made
from im_assets.selection.composition import Composition, composition_table
from im_assets.selection.figures import tilt_figure
from im_assets.selection.reach import beyond_reach
from im_resources.texts import one_line

KEY, TITLE = "selection", "What was selected"
EXCERPT, SHOWN = 300, 5
WITHOUT_ROWS = "Examples are left out: this copy of the report holds no row of the data."


def section(found: Gathered, with_rows: bool) -> Section:
    """Size and tilt of each pool's selection; with rows, its first and last, the pool's worst."""
    if found.refused:
        return Section(KEY, TITLE, (Text(f"{found.refused}.", "warning"),))
    made = {name: pool for name, pool in found.pools.items() if pool.selection is not None}
    if not made:
        return not_made(KEY, TITLE, *(f"{name}_selection" for name in found.study.pools))
    blocks: list[Block] = []
    for name, pool in made.items():
        blocks += _of_pool(found, name if len(found.study.pools) > 1 else "", pool, with_rows)
    if not with_rows:
        blocks.append(Text(WITHOUT_ROWS))
    return Section(KEY, TITLE, tuple(blocks))


def _of_pool(found: Gathered, name: str, pool: PoolTables, with_rows: bool) -> list[Block]:
    """``name`` is empty where there is only one pool."""
    selection = pool.selection
    assert selection is not None
    key, of = (f"{name}_", f" of {name}") if name else ("", "")
    target = found.target
    predicted = selection[target.predicted_column]
    best, last = predicted.min(), predicted.max()
    if target.direction == "higher":
        best, last = last, best
    facts = [
        Fact(f"{key}selected", f"examples selected{of}", len(selection), "int"),
        Fact(f"{key}best", f"{target.best} predicted {target.label}", best, "loss"),
        Fact(f"{key}last", f"{target.worst} in it", last, "loss"),
    ]
    blocks: list[Block] = []
    if "beyond_chance" in selection and selection["beyond_chance"].eq(False).any():
        said = f"The selection{of} is by a rule that is not beyond chance (selection.when_chance)."
        blocks.append(Text(said, "warning"))
    if found.of_earlier_rule(selection):
        blocks.append(
            Text(f"The selection{of} is of an earlier rule: materialize it again.", "warning")
        )
    blocks += [Facts(tuple(facts)), *_tilt(found, key, of, pool.means)]
    blocks += _reach(key, of, pool.reach)
    if pool.compositions:
        blocks.append(_composition(key, of, pool.compositions))
    if not with_rows:
        return blocks
    ordered = selection.sort_values("rank")
    first = ordered.head(SHOWN)
    blocks.append(_excerpts(f"{key}best", f"First of the selection{of}", first, found))
    if len(ordered) > SHOWN:
        rest = ordered.iloc[SHOWN:].tail(SHOWN)
        blocks.append(_excerpts(f"{key}last", "Last that still came in", rest, found))
    if pool.worst is not None and len(pool.worst):
        blocks.append(_excerpts(f"{key}worst", "Worst of the pool by the rule", pool.worst, found))
    return blocks


def _tilt(found: Gathered, key: str, of: str, means: pd.DataFrame | None) -> list[Block]:
    if means is None or means.empty:
        return []
    means = means.assign(shift=(means["selected"] - means["pool"]) / means["pool_sd"])
    order = [i for i in found.study.scoring.indicators if i in set(means["indicator"])]
    means = means.set_index("indicator").reindex(order).reset_index()
    columns = (
        Column("indicator", "Indicator", "text"),
        Column("selected", "Mean of the selection"),
        Column("pool", "Mean of the pool"),
        Column("pool_sd", "The pool's spread"),
        Column("shift", "Difference in spreads", "two"),
    )
    return [
        Figure(
            f"{key}tilt",
            f"How the selection{of} differs from the pool",
            "Difference of means, selection against pool, in the pool's standard deviations.",
            "One row an indicator: how far the selection's mean lies from the pool's, in standard "
            "deviations over the pool's examples. It shows what the selection prefers, also "
            "through indicators that the rule does not read; not that this is better.",
            tilt_figure(means),
            data=Table.of(f"{key}tilt", "Means of selection and pool", columns, means, True),
        )
    ]


def _reach(key: str, of: str, found: pd.DataFrame | None) -> list[Block]:
    if found is None or found.empty:
        return []
    columns = (
        Column("indicator", "Indicator", "text"),
        Column("low", "Points from"),
        Column("high", "to"),
        Column("selected_outside", "Of the selection, outside", "percent"),
        Column("pool_outside", "Of the pool, outside", "percent"),
        Column("mean", "Mean of the selection"),
        Column("where", "It lies", "text"),
    )
    rows = found.assign(where=found["mean_outside"].map({True: "outside", False: "within"}))
    caption = f"How far the selection{of} lies outside of what the rule was fitted on"
    blocks: list[Block] = [Table.of(f"{key}reach", caption, columns, rows)]
    if said := beyond_reach(found):
        note = "There the rule is a guess, however well it ranks mixtures."
        blocks.append(Text(f"{said}. {note}", "warning"))
    return blocks


def _composition(key: str, of: str, compositions: Sequence[Composition]) -> Table:
    columns = (
        Column("column", "By", "text"),
        Column("group", "Which", "text"),
        Column("selected", "Share of the selection", "percent"),
        Column("pool", "Share of the pool", "percent"),
        Column("distance", "To exchange for the pool's shares", "percent"),
        Column("concentrates_from", "Told from", "percent"),
    )
    caption = f"What the selection{of} is composed of, and the pool"
    return Table.of(f"{key}composition", caption, columns, composition_table(list(compositions)))


def _excerpts(key: str, caption: str, rows: pd.DataFrame, found: Gathered) -> Excerpts:
    return Excerpts(key, caption, tuple(_excerpt(r, found) for r in rows.to_dict("records")))


def _excerpt(row: dict[Any, Any], found: Gathered) -> Excerpt:
    target, names = found.target, found.indicators
    heading = f"Rank {row['rank']}" if "rank" in row else str(row["example_id"])
    texts = (("instruction", "instruction"), ("input", "input"), ("output", "response"))
    parts = [(name, one_line(str(row[key]), EXCERPT)) for key, name in texts if plain(row.get(key))]
    if plain(row.get("category")):
        parts.append(("category", one_line(str(row["category"]), EXCERPT)))
    place = Place.of(row)
    if place.source:
        own = f", id {place.own_id}" if place.own_id else ""
        parts.append(("from", one_line(f"{place}{own}", EXCERPT)))
    predicted = target.predicted_column
    numbers = [Fact(predicted, f"predicted {target.label}", row[predicted], "loss")]
    numbers += [Fact(name, name, row[name]) for name in names if name in row]
    return Excerpt(heading, tuple(parts), tuple(numbers))
