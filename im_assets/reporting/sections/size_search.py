"""The search for a selection's size."""

from im_assets.common.formatting import plain, rows_of, shown
from im_assets.reporting.blocks import Block, Column, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_in_profile, not_made, of_earlier_rule
from im_assets.reporting.sections.columns import measured_on
from im_assets.selection.figures import size_figure

KEY, TITLE = "size", "How much to select"


def section(found: Gathered) -> Section:
    """Losses of the sizes tried by the search and by the grid of the same budget."""
    if found.study.selection.size != "searched":
        what = f"the size is given ({found.study.selection.size}), not searched for."
        return not_in_profile(KEY, TITLE, "selection.size: searched", what)
    table = found.get("size_search")
    if table is None:
        return not_made(KEY, TITLE, "size_search")
    what = found.target.measure_label
    picked = table[[bool(plain(c)) for c in table["chosen"]]]
    held_out = "part" in table and set(table["part"]) == {"held_out"}
    other = "the other half of the evaluation set"
    if held_out:
        other = "the instructions that are held out"
    sentences: list[Block] = [
        Text(
            f"{r.method} chose {shown(r.size, 'int')} examples; its {what} on {other} is "
            f"{shown(r.report_loss, 'loss')}.",
            "answer",
        )
        for r in rows_of(picked)
    ]
    columns = (
        Column("method", "Method", "text"),
        Column("trial", "Trial", "int"),
        Column("size", "Examples", "int"),
        Column("search_loss", f"{what.capitalize()} searched on", "loss"),
        Column("report_loss", f"{what.capitalize()} reported", "loss"),
        Column("chosen", "Chosen", "text"),
    )
    figure = Figure(
        "size_search",
        f"{what.capitalize()} against the size of the selection",
        f"Reported {what} of every size that was tried.",
        f"The search saw the {found.target.plural} on one part of the evaluation set; drawn is the "
        "other part, which it did not see. Differences smaller than the noise floor do not tell "
        "sizes apart.",
        size_figure(table, target=found.target),
        data=Table.of("size_search", "Every trial", columns, table, True),
    )
    return Section(
        KEY,
        TITLE,
        (*of_earlier_rule(found, "size_search"), *sentences, *measured_on(table), figure),
    )
