"""Figures in Dagster's metadata: one look for all, and small, since they live in the event log.

A figure is a PNG in a data URI, so it shows in the UI without a file server and stays with the
materialization that it belongs to. matplotlib is imported inside functions and used without pyplot:
no global state, no display, and the code location loads fast.
"""

import base64
import io
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

BLUE, ORANGE, INK, GREY, LINE = "#2563eb", "#ea580c", "#0f172a", "#64748b", "#e2e8f0"
MAX_BYTES = 60_000


def new_figure(rows: int = 1, columns: int = 1, height: float = 5.0) -> "tuple[Figure, list[Axes]]":
    """A figure 9 inches (900 px) wide and its axes, row by row, in the house's look."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look: dict[Any, Any] = {
        "font.size": 12,
        "font.family": "sans-serif",
        "text.color": INK,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "axes.titlesize": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "xtick.color": GREY,
        "ytick.color": GREY,
    }
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(9, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def figure_png(figure: "Figure") -> bytes:
    """The figure as a PNG of 64 colours (a third of the size), 900 px wide.

    A figure above ``MAX_BYTES`` is drawn at a lower resolution until it fits (at least 450 px).
    """
    from PIL import Image

    for dpi in (100, 80, 65, 50):
        raw, packed = io.BytesIO(), io.BytesIO()
        figure.savefig(raw, format="png", dpi=dpi, facecolor="white")
        with Image.open(raw) as image:
            image.convert("RGB").quantize(64).save(packed, format="PNG", optimize=True)
        if packed.tell() <= MAX_BYTES:
            break
    return packed.getvalue()


def png_markdown(png: bytes, alt: str = "figure") -> dg.MarkdownMetadataValue:
    """Dagster metadata that shows the PNG; ``alt`` is read out where images are not shown."""
    data = base64.b64encode(png).decode("ascii")
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{data})")


def loss_curve(losses: "Sequence[float]", title: str) -> bytes:
    """Training loss (nats per response token) against the optimizer step, as a PNG."""
    figure, (axes,) = new_figure(height=3.2)
    axes.plot(range(1, len(losses) + 1), losses, color=BLUE, marker="o", markersize=3)
    axes.set(title=title, xlabel="optimizer step", ylabel="loss (nats/token)")
    return figure_png(figure)


def histogram(groups: "Mapping[str, ArrayLike]", title: str, label: str) -> bytes:
    """Densities of several groups of numbers over common bins, as a PNG."""
    import numpy as np

    figure, (axes,) = new_figure(height=3.6)
    values = {name: np.asarray(group, dtype=float) for name, group in groups.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=40)
    for (name, group), color in zip(values.items(), (GREY, ORANGE, BLUE), strict=False):
        axes.hist(group, bins=list(bins), density=True, alpha=0.55, color=color, label=name)
    axes.set(title=title, xlabel=label, ylabel="density")
    axes.legend(frameon=False)
    return figure_png(figure)
