"""Proxy transfer: whether a smaller model's rule ranks this study's mixtures."""

from im_assets.reporting.blocks import Column, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_in_profile, not_made

KEY, TITLE = "transfer", "Would a smaller model have told the same?"


def section(found: Gathered) -> Section:
    """Agreement of the two studies, item by item."""
    if found.study.transfer is None:
        what = "no rule of a smaller base model was checked on these mixtures."
        return not_in_profile(KEY, TITLE, "transfer", what)
    table = found.get("proxy_transfer")
    if table is None:
        return not_made(KEY, TITLE, "proxy_transfer")
    columns = (
        Column("item", "Agreement", "text"),
        Column("measure", "By", "text"),
        Column("value", "Value"),
        Column("low", "from"),
        Column("high", "to"),
        Column("n", "Mixtures", "int"),
        Column("goal", "Goal"),
        Column("verdict", "Verdict", "text"),
        Column("note", "Meaning", "text"),
    )
    rows = table.fillna({"note": ""})
    rows["measure"] = rows["measure"].str.replace("_", " ")
    text = (
        f"The rule of the study {found.study.transfer.study!r}, applied to this study's mixtures. "
        "Where the ranks agree, a smaller model can do the finetuning: of two sets it then knows "
        "the better one (decision accuracy), and its best is nearly the best (regret)."
    )
    return Section(KEY, TITLE, (Text(text), Table.of("transfer", "Agreement", columns, rows)))
