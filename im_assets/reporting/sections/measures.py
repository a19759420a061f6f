"""Whether the rule's target is the right one: what is measured beside it, against it."""

from im_assets.experiments.measures import beside_target
from im_assets.reporting.blocks import Column, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_made

KEY, TITLE = "measures", "Is the {} the right target here?"


def sections(found: Gathered) -> tuple[Section, ...]:
    """How each further measure ranks the sets, against the target; none where only that is."""
    if not beside_target(found.study):
        return ()
    what = found.target.measure_label
    title = TITLE.format(what)
    table = found.get("measure_agreement")
    if table is None:
        return (not_made(KEY, title, "measure_agreement"),)
    columns = (
        Column("measure", "Measure", "text"),
        Column("spearman", "Spearman", "two"),
        Column("low", "from", "two"),
        Column("high", "to", "two"),
        Column("n", "Points", "int"),
        Column("note", "In words", "text"),
    )
    named = table.assign(measure=table["measure"].str.replace("_", " "))
    opposed = named.loc[table["verdict"] == "opposed", "measure"].tolist()
    unclear = named.loc[table["verdict"].isin(["open", "undefined"]), "measure"].tolist()
    answers = [
        f"Not for the {', '.join(opposed)}: sets that the {what} finds good are bad there."
        if opposed
        else "",
        f"These points leave it open for the {', '.join(unclear)}." if unclear else "",
    ]
    if not any(answers):
        answers = [f"Every other measure ranks the sets as the {what} does, more or less."]
    how = (
        f"The rule selects for the {what} and for nothing else. Here every measured set is ranked "
        "by each other measure too, each from bad to good: 1 is the same order, 0 none, -1 the "
        "opposite. Where the order is another, let the rule predict what you care about "
        "(rule.target)."
    )
    return (
        Section(
            KEY,
            title,
            (
                Text(" ".join(filter(None, answers)), "answer"),
                Text(how),
                Table.of("measure_agreement", f"Measures against the {what}", columns, named),
            ),
        ),
    )
