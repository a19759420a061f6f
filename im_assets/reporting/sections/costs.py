"""What each selection cost: operations and seconds of its mining and its training."""

from im_assets.common.formatting import plain, shown
from im_assets.reporting.blocks import Block, Column, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_in_profile, not_made, of_earlier_rule
from im_assets.validation.figures import cost_figure

KEY, TITLE = "costs", "What it cost"


def section(found: Gathered) -> Section:
    """Loss against operations, the table, and when mining is cheaper than training on it all."""
    if found.study.validation is None:
        return not_in_profile(KEY, TITLE, "validation", "no selection was finetuned on.")
    costs = found.get("selection_costs")
    if costs is None:
        return not_made(KEY, TITLE, "selection_costs")
    blocks: list[Block] = [*of_earlier_rule(found, "selection_costs"), Text(_HOW)]
    for row in costs.to_dict("records"):
        if row["rule_flop"] > 0:
            blocks.append(Text(_break_even(row), "answer"))
    target = found.target
    columns = (
        Column("strategy", "Strategy", "text"),
        Column("size", "Examples", "int"),
        Column(target.measure, target.noun.capitalize(), "loss", found.unit.replace("/", " per ")),
        Column("scoring_flop", "Scoring the pool (FLOP)", "number", "FLOP"),
        Column("rule_flop", "Mining the rule (FLOP)", "number", "FLOP"),
        Column("training_flop", "One finetune (FLOP)", "number", "FLOP"),
        Column("total_flop", "Together (FLOP)", "number", "FLOP"),
        Column("training_seconds", "One finetune (s)", "number", "s"),
        Column("rule_seconds", "Finetunes behind the rule (s)", "number", "s"),
        Column("break_even_examples", "Pays from a pool of", "int", "examples"),
        Column("note", "Not counted", "text"),
    )
    figure = Figure(
        "costs",
        f"{target.measure_label.capitalize()} against cost",
        f"Mean {target.noun} of each arm against the operations of its selection and training.",
        "One dot an arm: the further left, the cheaper; the axis is logarithmic. What the study's "
        "rule selects bears the whole price of the rule, which a second pool would not pay again.",
        cost_figure(costs, target),
        data=Table.of("costs", "What each arm cost", columns, costs),
    )
    return Section(KEY, TITLE, (*blocks, figure))


_HOW = (
    "Operations are matrix products of the models, counted from the lengths of the texts; a dash "
    "is what is not known. Seconds are those that were recorded: of finetunes."
)


def _break_even(row: dict[object, object]) -> str:
    size, name = plain(row["break_even_examples"]), row["strategy"]
    if size is None:
        return f"What {name!r} selects costs more than training on the whole pool, however large."
    return (
        f"Mining the rule, scoring the pool and training on what {name!r} selects "
        f"({shown(row['size'], 'int')} examples) costs less than training on the whole pool once "
        f"that has more than {shown(size, 'int')} examples."
    )
