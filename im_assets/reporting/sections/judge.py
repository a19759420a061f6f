"""The pairwise judge: whose answers win."""

import pandas as pd

from im_assets.common.formatting import between, plain, shown
from im_assets.judging.figures import outcome_figure
from im_assets.judging.net_score import NetScore, net_score
from im_assets.judging.verdicts import Tally, tally
from im_assets.reporting.blocks import Block, Column, Fact, Facts, Figure, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections.absent import not_in_profile, not_made, of_earlier_rule

KEY, TITLE = "judge", "What a judge prefers"

LOCAL = (
    "The judge is the study's own base model. This shows how judging works and is no evidence: a "
    "small model mostly prefers a position."
)


def section(found: Gathered) -> Section:
    """Shares of wins, ties and losses, what they say, and what could not be judged."""
    settings = found.study.judge
    if settings is None or found.study.validation is None:
        what = "no judge compared the answers of two models."
        return not_in_profile(KEY, TITLE, "judge", what)
    table = found.get("pairwise_judge")
    if table is None:
        return not_made(KEY, TITLE, "pairwise_judge")
    outcome = table["outcome"].dropna()
    total = len(outcome)
    first, second = settings.first, settings.second
    if total == 0:
        text = f"None of the {len(table)} comparisons gave a verdict."
        return Section(KEY, TITLE, (Text(text, "answer"),))
    found_outcomes = [o if isinstance(o, str) else None for o in table["outcome"]]
    counts, score = tally(found_outcomes, [None] * len(table)), net_score(table)
    assert score is not None  # since something was judged
    both = table.dropna(subset=["order_1", "order_2"])
    winners = both[(both["order_1"] != "tie") & (both["order_2"] != "tie")]
    changed = int((winners["order_1"] != winners["order_2"]).sum())
    facts = (
        Fact("pairs", "pairs of finetunes", score.pairs, "int"),
        Fact("judged", "comparisons judged", total, "int"),
        Fact("unjudged", "without a verdict", len(table) - total, "int"),
        Fact("both_orders", "judged in both orders", len(both), "int"),
        Fact("order_changed", "whose winner changed with the order", changed, "int"),
    )
    win, lose = counts.shares["win"], counts.shares["lose"]
    judges = ", ".join(sorted(str(j) for j in table["judge"].dropna().unique() if plain(j)))
    blocks: list[Block] = [
        *of_earlier_rule(found, "pairwise_judge"),
        Text(
            f"Over {score.instructions} instructions{_held_out(table)} and {score.pairs} "
            f"pair{'s' * (score.pairs > 1)} of finetunes, {first} wins "
            f"{shown(win.share, 'percent')} and {second} {shown(lose.share, 'percent')}: "
            f"{said(score, first, second)}.",
            "answer",
        ),
        Text(f"Judge: {judges}." if judges else "The judge is not named."),
        *([Text(LOCAL, "warning")] if settings.backend == "local" else []),
        Facts(facts),
        Figure(
            "judge",
            "Wins, ties and losses",
            f"Shares of comparisons that {first} wins, ties and loses against {second}.",
            "Each pair of answers is shown to the judge twice, in both orders; a verdict that "
            "turns with the order counts as a tie. Bars are shares of the comparisons; what they "
            "say is told by the net score's interval above. A small judge likes whatever stands "
            "first: look at how many winners changed.",
            outcome_figure(counts, first, second, judges or "a judge"),
            data=_table(counts, first, second),
        ),
    ]
    return Section(KEY, TITLE, tuple(blocks))


REASONS = {
    "one pair": "one pair of finetunes cannot tell what another would have changed",
    "few instructions": "one instruction cannot tell what another would have changed",
    "one-sided": "so few finetunes that nearly all win or lose alike cannot tell their noise",
}


def said(score: NetScore, first: str, second: str) -> str:
    """Net score and verdict in words, which follow the verdict alone."""
    net = f"a net score of {shown(score.score, 'two')}"
    if score.reason is not None:
        return f"{net}; {REASONS[score.reason]}"
    interval = between(score.low, score.high, "two")
    lead = {"better": first, "worse": second}.get(score.verdict)
    verdict = f"{lead} is preferred" if lead else "no preference can be told from chance"
    return f"{net} ({interval} for new finetunes and instructions); {verdict}"


def _held_out(table: pd.DataFrame) -> str:
    """That all of them are held out of every fit, where the table says so."""
    out = "part" in table and set(table["part"]) == {"held_out"}
    return " that are held out of every fit" if out else ""


def _table(counts: Tally, first: str, second: str) -> Table:
    columns = (
        Column("name", "Outcome", "text"),
        Column("count", "Comparisons", "int"),
        Column("share", "Share", "percent"),
    )
    names = {"win": f"{first} wins", "tie": "tie", "lose": f"{second} wins"}
    rows = tuple(
        {"name": names[outcome], "count": rate.count, "share": rate.share or 0.0}
        for outcome, rate in counts.shares.items()
    )
    return Table("judge_outcomes", "Outcomes", columns, rows, folded=True)
