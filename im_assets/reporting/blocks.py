"""What a section is made of. The page and report.json are two writings of the same blocks, so that
every number on the page is in the JSON too."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import pandas as pd

from im_assets.common.charts.look import Chart
from im_assets.common.formatting import Kind, plain, shown


@dataclass(frozen=True)
class Text:
    """A paragraph; ``role`` says how it looks."""

    text: str
    role: Literal["plain", "answer", "note", "warning", "absent"] = "plain"


@dataclass(frozen=True)
class Fact:
    """One number with its label and unit."""

    key: str
    label: str
    value: Any
    kind: Kind = "number"
    unit: str = ""

    @property
    def text(self) -> str:
        return shown(self.value, self.kind)


@dataclass(frozen=True)
class Facts:
    """Numbers side by side."""

    items: tuple[Fact, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table: its key in the rows, and how it is shown."""

    key: str
    label: str
    kind: Kind = "number"
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values; ``folded`` tables are behind a click."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    folded: bool = False

    @classmethod
    def of(
        cls,
        key: str,
        caption: str,
        columns: Iterable[Column],
        frame: pd.DataFrame,
        folded: bool = False,
    ) -> "Table":
        """The named columns of a frame, its values as plain Python ones."""
        columns = tuple(columns)
        records = frame[[c.key for c in columns]].to_dict("records")
        rows = tuple({str(k): plain(v) for k, v in row.items()} for row in records)
        return cls(key, caption, columns, rows, folded)


@dataclass(frozen=True)
class Figure:
    """A chart, which may have panels, and how to read it."""

    key: str
    title: str
    alt: str
    how: str
    chart: Chart
    data: Table | None = None


@dataclass(frozen=True)
class Excerpt:
    """An example of the data, cut short, with its numbers."""

    heading: str
    parts: tuple[tuple[str, str], ...]
    numbers: tuple[Fact, ...]


@dataclass(frozen=True)
class Excerpts:
    """Examples under a caption; left out of a report without rows of the data."""

    key: str
    caption: str
    items: tuple[Excerpt, ...]


@dataclass(frozen=True)
class Code:
    """Preformatted text, such as a profile."""

    key: str
    caption: str
    text: str


Block: TypeAlias = Text | Facts | Table | Figure | Excerpts | Code


@dataclass(frozen=True)
class Section:
    """A heading and its blocks; ``key`` is its address on the page and in the JSON."""

    key: str
    title: str
    blocks: tuple[Block, ...] = field(default_factory=tuple)

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(b for b in self.blocks if isinstance(b, Figure))


def document(section: Section) -> dict[str, Any]:
    """The section for JSON: texts, and by key its facts, tables, figures and examples."""
    found: dict[str, Any] = {"title": section.title, "texts": []}
    for block in section.blocks:
        match block:
            case Text():
                found["texts"].append(block.text)
            case Facts():
                found.setdefault("facts", {}).update(_facts(block.items))
            case Table():
                found.setdefault("tables", {})[block.key] = _table(block)
            case Figure():
                found.setdefault("figures", {})[block.key] = {
                    "title": block.title,
                    "how_to_read": block.how,
                    "chart": block.chart,
                }
                if block.data is not None:
                    found.setdefault("tables", {})[block.data.key] = _table(block.data)
            case Excerpts():
                items = [
                    {"heading": e.heading, **dict(e.parts), "numbers": _facts(e.numbers)}
                    for e in block.items
                ]
                found.setdefault("examples", {})[block.key] = items
            case Code():
                found.setdefault("code", {})[block.key] = block.text
    return found


def _facts(items: Iterable[Fact]) -> dict[str, Any]:
    return {f.key: {"label": f.label, "value": plain(f.value), "unit": f.unit} for f in items}


def _table(table: Table) -> dict[str, Any]:
    columns = [{"key": c.key, "label": c.label, "unit": c.unit} for c in table.columns]
    rows: list[Mapping[str, Any]] = [
        {k: plain(v) for k, v in row.items() if k in {c.key for c in table.columns}}
        for row in table.rows
    ]
    return {"caption": table.caption, "columns": columns, "rows": rows}
