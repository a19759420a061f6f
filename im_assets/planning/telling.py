"""A plan in words: for the terminal, for the UI, and as JSON values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from im_assets.common.formatting import bytes_shown
from im_assets.planning.work import Plan, Span, Work

COLUMNS = ("asset", "what", "total", "there", "left", "tokens", "time")


def summary(plan: Plan) -> str:
    """The plan in one line."""
    if plan.nothing_left:
        return "nothing is left to compute"
    parts = []
    for kind, unit in (
        ("scoring", "examples to score"),
        ("training", "finetunes"),
        ("evaluating", "evaluations"),
    ):
        mine = [work for work in plan.work if work.kind == kind]
        if any(work.left is None for work in mine):
            parts.append(f"{unit}: not known before the data are read")
        elif any(work.left for work in mine):
            left = sum(work.left or 0 for work in mine)
            more = any(work.at_most and work.left for work in mine)
            parts.append(f"{'at most ' if more else ''}{left:,} {unit}")
    parts += [
        f"{'at most ' if work.at_most else ''}{work.left:,} {work.unit}"
        for work in plan.work
        if work.kind == "other" and work.left
    ]
    if plan.changed:
        parts.append(f"{', '.join(plan.changed)} to be read again")
    if plan.seconds is not None:
        parts.append(duration(plan.seconds))
    return ", ".join(parts)


def frame(plan: Plan) -> pd.DataFrame:
    """The plan as a table: a row an asset, all of it text."""
    return pd.DataFrame([_row(work) for work in plan.work], columns=list(COLUMNS))


def text(plan: Plan) -> str:
    """The plan as lines for a terminal."""
    rows = [COLUMNS, *(_row(work) for work in plan.work)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [f"plan of the study {plan.study!r}: {summary(plan)}"]
    for row in rows:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join([*lines, *(f"  {line}" for line in notes(plan))])


def notes(plan: Plan) -> list[str]:
    """What there is to say beside the table."""
    noted: dict[str, list[str]] = {}
    for work in plan.work:
        if work.note:
            noted.setdefault(work.note, []).append(work.asset)
    said = [f"{', '.join(assets)}: {note}" for note, assets in noted.items()]
    said += [f"{name}: {why}, so that it is read again" for name, why in plan.changed.items()
             if not any(work.asset == name and work.note for work in plan.work)]  # fmt: skip
    if (known := plan.told_seconds) is not None:
        what = "time" if plan.seconds is not None else "time of what can be told"
        said.append(f"{what}: {duration(known)}, without reading, the rule itself and the report")
    said += [f"time of {', '.join(kinds)}: as in {by}" for by, kinds in plan.rates.items()]
    said += plan.missing
    if plan.disk:
        said.append(f"disk: about {bytes_shown(plan.disk)} more; {bytes_shown(plan.free)} are free")
        if plan.disk > plan.free:
            said.append("WARNING: this does not fit on the disk")
    else:
        said.append(f"disk: {bytes_shown(plan.free)} are free")
    return said


def values(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values: seconds, bytes, counts."""
    return {
        **asdict(plan),
        "work": [asdict(work) | {"left": work.left} for work in plan.work],
        "summary": summary(plan),
        "seconds": plan.seconds,
        "disk": plan.disk,
    }


def duration(span: Span) -> str:
    """A span of seconds in words: "3 to 5 min"."""
    low, high = span
    unit, seconds = next(
        ((name, s) for name, s in (("days", 86400), ("h", 3600), ("min", 60)) if high >= 2 * s),
        ("s", 1),
    )
    ends = [f"{value / seconds:.1f}" if value < 10 * seconds and seconds > 1 else
            f"{value / seconds:.0f}" for value in (low, high)]  # fmt: skip
    return f"{ends[0]} to {ends[1]} {unit}" if ends[0] != ends[1] else f"{ends[0]} {unit}"


def _row(work: Work) -> Sequence[str]:
    most = "≤ " if work.at_most and work.left else ""

    bound = "≤ " if work.tokens and (most or work.tokens_at_most) else ""

    def number(count: int | None) -> str:
        return "?" if count is None else f"{count:,}"

    return (
        work.asset,
        work.unit,
        most * (work.total is not None) + number(work.total),
        number(work.found),
        most * (work.left is not None) + number(work.left),
        "" if work.kind == "reading" else bound + number(work.tokens),
        "" if work.kind == "reading" else "?" if work.seconds is None else duration(work.seconds),
    )
