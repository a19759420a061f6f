"""The rounds: whether the rule's error where it selects fell."""

from im_assets.reporting.blocks import Block, Column, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_made
from im_assets.reporting.sections.columns import measured_on
from im_assets.rounds.figures import rounds_figure
from im_assets.rounds.telling import sentences

KEY, TITLE = "rounds", "Rounds"


def sections(found: Gathered) -> tuple[Section, ...]:
    """The section, where the profile has rounds."""
    if found.study.mining is None:
        return ()
    table, target = found.get("mining_rounds"), found.target
    if table is None:
        return (not_made(KEY, TITLE, "mining_rounds"),)
    said = " ".join(sentences(table, target))
    blocks: list[Block] = [Text(said, "answer"), *measured_on(found.mixtures)]
    columns = (
        Column("round", "Round", "int"),
        Column("points", "Points fitted on", "int"),
        Column("sets", "Sets", "int"),
        Column("rmse", "Error", "loss"),
        Column("rmse_low", "from", "loss"),
        Column("rmse_high", "to", "loss"),
        Column("rule_rmse", "Of its own sets", "loss"),
        Column("change", "Change", "signed"),
        Column("change_low", "from", "signed"),
        Column("change_high", "to", "signed"),
        Column("verdict", "Verdict", "text"),
    )
    against = (
        Column("round", "Round", "int"),
        Column("less_random", f"{target.measure_label.capitalize()} less random", "signed"),
        Column("less_random_low", "from", "signed"),
        Column("less_random_high", "to", "signed"),
        Column("formula", "Rule", "text"),
    )
    words = table["verdict"].str.replace("_", " ")
    rows = table.assign(verdict=words.where(~table["stopped"].astype(bool), "not made").fillna("–"))
    every = Table.of("mining_rounds", "Every round", columns, rows)
    chart = rounds_figure(table, target)
    if chart is not None:
        blocks.append(
            Figure(
                "mining_rounds",
                "How wrong each round's rule is where it selects",
                f"Root mean squared error in {target.label} of every round, with its interval.",
                "Every round's rule is asked about sets that it and its rivals selected and that "
                "it was not fitted on; then the next one is fitted on these too. The interval is "
                "for new sets of the same kind. Whether the error fell is told by the interval of "
                "the change, and not by whether two of these overlap.",
                chart,
            )
        )
    blocks += [every, Table.of("round_rules", "What each round selected by", against, rows)]
    return (Section(KEY, TITLE, tuple(blocks)),)
