"""The paper's figure: how often the first arm's answer wins, ties and loses."""

from im_assets.common.charts.look import Chart, Look
from im_assets.common.charts.rows import Row, rows_chart
from im_assets.judging.verdicts import OUTCOMES, Outcome, Tally


def outcome_figure(tally: Tally, first: str, second: str, judge: str) -> Chart:
    """Shares of the judged comparisons that are won, tied and lost."""
    names = {"win": f"{first} wins", "tie": "tie", "lose": f"{second} wins"}
    looks: dict[Outcome, Look] = {"win": 1, "tie": 2, "lose": 0}
    judged = sum(rate.count for rate in tally.shares.values())
    rows = []
    for outcome in OUTCOMES:
        rate, name = tally.shares[outcome], names[outcome]
        text = f"{name}: {rate.count} of {judged}"
        rows.append(Row(name, rate.share or 0.0, text=text, look=looks[outcome]))
    title = f"{first} against {second}, judged by {judge}"
    return rows_chart(rows, f"share of {judged} comparisons", title, kind="bar")
