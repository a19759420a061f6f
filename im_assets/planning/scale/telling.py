"""The answers as Markdown, which a terminal shows too, and the page ``docs/scale.md`` holds."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from im_assets.planning.scale.breaking import Limit
from im_assets.planning.scale.coefficients import Coefficients
from im_assets.planning.scale.needs import SPAN, Needs
from im_assets.planning.scale.ranges import Range

UNKNOWN = "not measured"
# A unit whose small amounts are told in another, and how many of it that is.
SMALLER = {
    "TB": ("GB", 1000),
    "GB": ("MB", 1000),
    "days": ("h", 24),
    "h": ("s", 3600),
    "GPU-h": ("GPU-s", 3600),
    "core-h": ("core-s", 3600),
}


def number(value: float) -> str:
    """Two significant digits, with commas."""
    if value == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(0, digits)}f}"


def amount(value: Range | None, unit: str = "") -> str:
    """A range in words: "2,400 to 5,000 GPU-h"."""
    if value is None:
        return UNKNOWN
    while unit in SMALLER and value.high < 1 and value.high > 0:
        unit, times = SMALLER[unit]
        value = value * times
    low, high = number(value.low), number(value.high)
    shown = low if low == high else f"at most {high}" if value.low == 0 else f"{low} to {high}"
    return f"{shown} {unit}".rstrip()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def needs_table(
    columns: Mapping[str, Mapping[str, Needs]], more: Sequence[Sequence[str]] = ()
) -> str:
    """A column a question, a row a figure.

    Args:
        columns: by title, and by what computes ("8 h100"): answers that differ in their time alone.
        more: rows that follow the time: a title, and a cell a question.
    """
    first = [next(iter(answers.values())) for answers in columns.values()]
    rows = [["a finetune on one GPU", *map(fits, first)]]
    for name in first[0].figures:
        if name == SPAN:
            for gpus in next(iter(columns.values())):
                rows.append([f"time on {gpus}", *(cell(a[gpus], name) for a in columns.values())])
            rows += map(list, more)
            continue
        rows.append([name, *(cell(needs, name) for needs in first)])
        if name == "GPU time together":
            rows.append(["known within a factor of", *(_factor(needs, name) for needs in first)])
    return table(["", *columns], rows)


def cell(needs: Needs, name: str) -> str:
    """A figure, or why it is not known."""
    figure = needs.figures[name]
    return figure.why if figure.value is None else amount(figure.value, figure.unit)


def fits(needs: Needs) -> str:
    """How a finetune runs on one GPU, and whether it does."""
    if needs.way.fits == "perhaps":
        doubt = UNKNOWN if needs.way.memory is None else "perhaps it does not fit"
        return f"{needs.way}: {doubt}"
    return str(needs.way) if needs.way.fits == "yes" else f"does not fit in {needs.way}"


def _factor(needs: Needs, name: str) -> str:
    if (value := needs[name]) is None:
        return cell(needs, name)
    return "no lower end" if math.isinf(value.factor) else number(value.factor)


def limits_table(limits: Sequence[Limit]) -> str:
    """What breaks, in order."""
    rows = [[limit.of, _count(limit.at), limit.what, limit.change] for limit in limits]
    return table(["", "from about", "what breaks", "what would have to change"], rows)


def _count(value: Range | None) -> str:
    if value is None:
        return UNKNOWN
    for name, size in (("billion", 1e9), ("million", 1e6)):
        if value.low >= size:
            return f"{amount(value * (1 / size))} {name}"
    return amount(value)


def unmeasured(known: Coefficients) -> str:
    """What is in no figure, in a sentence; empty where there is nothing."""
    names = ", ".join(f"`{name}`" for name in known.unmeasured)
    return f"Not measured yet, and so in no figure: {names}." if names else ""


def coefficients_table(known: Coefficients) -> str:
    """Every coefficient with its source."""
    rows = []
    for name, one in known.all.items():
        value = UNKNOWN if one.value is None else _ends(one.value)
        rows.append([f"`{name}`", value, one.unit, one.kind, one.source])
    return table(["coefficient", "from, to", "unit", "", "source"], rows)


def _ends(value: Range) -> str:
    low, high = (f"{end:g}" for end in (value.low, value.high))
    return low if low == high else f"{low} to {high}"


def put(page: Path, sections: Mapping[str, str]) -> None:
    """Write the sections into a page, between ``<!-- scale: NAME -->`` and ``<!-- end -->``.

    Raises ValueError where the page has no place for one, or a place for another.
    """
    text = page.read_text(encoding="utf-8")
    places = re.findall(r"<!-- scale: (.+?) -->", text)
    if sorted(places) != sorted(sections):
        raise ValueError(
            f"{page}: places for {', '.join(places) or 'nothing'}; expected one each for "
            f"{', '.join(sections)}, as `<!-- scale: NAME -->` and `<!-- end -->`"
        )
    for name, section in sections.items():
        before, mark, rest = text.partition(f"<!-- scale: {name} -->\n")
        text = f"{before}{mark}\n{section}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    page.write_text(text, encoding="utf-8")
