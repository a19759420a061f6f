"""Draws charts: an SVG for the report's page, a small PNG for Dagster's metadata.

vl-convert runs Vega inside this process: no browser, no display, no network. Altair and vl-convert
are imported inside functions, so that the code location loads fast.
"""

import base64
import io
import json
import re
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

import dagster as dg

from im_assets.common.charts.look import FONT, Chart, config, text_width
from im_assets.common.charts.panels import panels
from im_assets.common.presentation import markdown

MAX_BYTES = 60_000  # metadata is kept in Dagster's event log
PNG_WIDTH, DRAWN_WIDTH = 900, 680  # px; text of 12 px is 16 px high in a PNG
# A page is laid out for text of 13.5 px and shown with 12: a browser's font may be wider than ours.
LAID_OUT = 13.5
GAP = 28
SVG = "http://www.w3.org/2000/svg"
SERIES = re.compile(r"series_(\d+)_\d+_")


def png_markdown(chart: Chart, alt: str) -> dg.MarkdownMetadataValue:
    """Dagster metadata that shows the chart; ``alt`` is read out where images are not shown.

    The picture is a data URI: it shows without a file server, and stays with its materialization.
    """
    data = base64.b64encode(png(chart)).decode("ascii")
    return dg.MetadataValue.md(f"![{markdown(alt)}](data:image/png;base64,{data})")


def png(chart: Chart) -> bytes:
    """The chart as a PNG of 32 colours (a third of the size), 900 px wide, on white.

    One above ``MAX_BYTES`` is drawn at a lower resolution until it fits (at least 450 px).
    """
    import vl_convert
    from PIL import Image

    drawn = _vega(json.dumps(_sized(chart, DRAWN_WIDTH)))
    width = float(ElementTree.fromstring(drawn).attrib["width"])
    for pixels in (PNG_WIDTH, 720, 585, 450):
        raw = io.BytesIO(vl_convert.svg_to_png(drawn, scale=(pixels + 0.5) / width))
        packed = io.BytesIO()
        with Image.open(raw) as image:
            image.convert("RGB").quantize(32).save(packed, format="PNG", optimize=True)
        if packed.tell() <= MAX_BYTES:
            break
    return packed.getvalue()


def svg(chart: Chart, width: float, alt: str, style: str = "", look: str = "") -> str:
    """One chart as an SVG element, ``width`` px wide, without the title that stands beside it.

    Each mark carries its text as a title, and each series the number of its entry in the legend,
    for the page's script.

    Args:
        chart: not one of panels: draw these one by one.
        alt: read out instead of the picture.
        style: CSS; with it the SVG is a document of its own, else a part of a page.
        look: a further class, by which the page shows one of two widths.
    """
    untitled = {k: v for k, v in chart.items() if k != "title"}
    root = ElementTree.fromstring(_vega(json.dumps(_sized(untitled, width, LAID_OUT))))
    size = {name: root.attrib[name] for name in ("width", "height", "viewBox")}
    root.attrib.clear()
    root.attrib |= size if style else {"viewBox": size["viewBox"]}
    root.attrib |= {"role": "img", "aria-label": alt, "class": f"chart {look}".strip()}
    _tidy(root)
    if style:
        root.set("xmlns", SVG)
        element = ElementTree.Element("style")
        element.text = style
        root.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode")


@lru_cache(maxsize=256)  # a report draws a chart for its page and again as a file
def _vega(specification: str) -> str:
    import vl_convert

    return vl_convert.vegalite_to_svg(specification)


def _sized(chart: Chart, width: float, font: float = FONT) -> Chart:
    """The chart for one width: its size, its text, and its columns where it has panels."""
    names = [name for part in panels(chart) for name in _domain(part, "y")]
    legend = [name for part in panels(chart) for name in _domain(part, "stroke", "fill")]
    if "concat" not in chart:
        height = {"height": _height(chart, width)} if "height" in chart else {}
        fit = {"type": "fit-x", "contains": "padding"}
        return {**chart, **height, "width": width, "autosize": fit,
                "config": config(width, names, legend, font)}  # fmt: skip
    columns = min(chart["columns"], len(chart["concat"]))
    room = (width - GAP * (columns - 1)) / columns
    beside = max(map(text_width, names), default=36.0) + 12
    made = config(room if columns > 1 else width, names, legend, font)
    parts = [
        {**part, "width": room - beside,
         **({"height": _height(part, room)} if "height" in part else {})}
        for part in chart["concat"]
    ]  # fmt: skip
    return {**chart, "concat": parts, "columns": columns, "spacing": GAP, "config": made}


def _height(chart: Chart, width: float) -> float:
    return max(150.0, min(float(chart["height"]), 0.5 * width))


def _domain(chart: Chart, *channels: str) -> list[str]:
    """The names that a channel of the chart distinguishes."""
    for part in (chart, *chart.get("layer", ())):
        for channel in channels:
            encoded: dict[str, Any] = part.get("encoding", {}).get(channel, {})
            if encoded.get("legend", 0) is None:
                continue
            domain = (encoded.get("scale") or {}).get("domain", ())
            if domain and all(isinstance(name, str) for name in domain):
                return list(domain)
    return []


def _tidy(root: ElementTree.Element) -> None:
    """Leave what is seen, and what the page's style and script need of it."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        for child in [c for c in element if _invisible(c)]:
            element.remove(child)
    for element in list(root.iter())[1:]:
        text = element.attrib.pop("aria-label", "")
        is_mark = element.attrib.get("role") == "graphics-symbol" and element.tag == "path"
        classes = "" if element.get("class") == "key" else element.attrib.pop("class", "")
        for name in ("role", "aria-roledescription", "aria-hidden", "pointer-events",
                     "font-family", "stroke-miterlimit"):  # fmt: skip
            element.attrib.pop(name, None)
        if element.get("opacity") == "1":
            del element.attrib["opacity"]
        for name in ("transform", "d"):
            if name in element.attrib:
                element.set(name, re.sub(r"\d+\.\d+", _rounded, element.attrib[name]))
        if is_mark and text:
            element.set("class", "mark")
            ElementTree.SubElement(element, "title").text = text
        if found := SERIES.search(classes):
            element.set("data-series", found[1])
        elif "role-legend-entry" in classes:
            scope = next(g for g in element.iter("g") if "role-scope" in g.get("class", ""))
            for number, entry in enumerate(scope.findall("g")):
                entry.attrib |= {"class": "key", "data-series": str(number)}


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")


def _invisible(element: ElementTree.Element) -> bool:
    """Backgrounds and foregrounds of groups that have neither colour nor line."""
    part = element.get("class") in ("background", "foreground")
    return part and not {"fill", "stroke"} & set(element.attrib)
