"""What share of each source: effects, and the mixture that is proposed."""

from im_assets.reporting.blocks import Block, Column, Fact, Facts, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import lacking, not_made
from im_assets.reporting.sections.columns import measured_on
from im_assets.shares.figures import shares_figure
from im_assets.shares.telling import sentence, step_words

KEY, TITLE = "shares", "What share of each source?"


def section(found: Gathered) -> Section:
    """The effect of each source's share, and the proposed mixture."""
    if len(found.study.data.candidates) < 2:
        text = "The study has one source: there are no shares to choose."
        return Section(KEY, TITLE, (Text(text, "absent"),))
    if missing := lacking(found, "source_shares"):
        return not_made(KEY, TITLE, *missing)
    table, target = found.tables["source_shares"], found.target
    first = table.iloc[0]
    blocks: list[Block] = [Text(sentence(table, target), "answer"), *measured_on(found.mixtures)]
    blocks.append(
        Facts(
            (
                Fact("mixtures", "mixtures", int(first["mixtures"]), "int"),
                Fact("r2_left_out", "R² of shares alone, left out", first["r2_left_out"], "two"),
                Fact("gain", f"{target.label} of the proposal", first["gain"], "signed"),
            )
        )
    )
    chart = shares_figure(table, target)
    columns = (
        Column("source", "Source", "text"),
        Column("examples", "Examples", "int"),
        Column("own_share", "Share of the data", "percent"),
        Column("effect", "Effect of 10 % more", "signed"),
        Column("effect_low", "from", "signed"),
        Column("effect_high", "to", "signed"),
        Column("verdict", "Verdict", "text"),
        Column("proposed_share", "Proposed share", "percent"),
        Column("repeated", "Each example repeated", "two"),
    )
    rows = table.assign(verdict=table["verdict"].str.replace("_", " ").fillna("–"))
    every = Table.of("source_share_rows", "Sources and the proposed mixture", columns, rows)
    if chart is not None:
        blocks.append(
            Figure(
                "source_shares",
                "What a share of each source is worth",
                f"Change of the {target.label} by ten percent more of each source, with intervals.",
                f"One row a source: what {step_words()}, changes, by the best line through the "
                f"mixtures; {target.direction} is better. The intervals hold all together, so a "
                "source whose interval leaves out zero may be called. Of tilted mixtures the "
                "examples differ too, which is noise here.",
                chart,
            )
        )
    blocks.append(every)
    return Section(KEY, TITLE, tuple(blocks))
