"""Densities of several groups of numbers over common bins."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from im_assets.common.charts.look import BLUE, GREY, ORANGE, Chart, data_name, finished

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

COLOURS = (GREY, ORANGE, BLUE)


def densities_chart(groups: "Mapping[str, ArrayLike]", x: str, title: str = "") -> Chart:
    """The densities of up to three groups, the first behind the others; ``x`` labels the axis."""
    import altair as alt
    import numpy as np

    values = {name: np.asarray(group, dtype=float) for name, group in groups.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=40)
    colours = alt.Scale(domain=list(groups), range=list(COLOURS[: len(groups)]))
    datasets: dict[str, list[dict[str, str | float]]] = {}
    layers = []
    for name, group in values.items():
        key = data_name(name, datasets)
        density, _ = np.histogram(group, bins=edges, density=True)
        datasets[key] = [
            {"series": name, "from": float(a), "to": float(b), "density": float(d)}
            for a, b, d in zip(edges[:-1], edges[1:], density, strict=True)
        ]
        bars = alt.Chart(alt.NamedData(key)).mark_rect(aria=False, opacity=0.55)
        layers.append(
            bars.encode(
                x=alt.X("from:Q").title(x).scale(zero=False, nice=False),
                x2=alt.X2("to:Q"),
                y=alt.Y("density:Q").title("density"),
                y2=alt.Y2Datum(0),
                fill=alt.Fill("series:N").title(None).scale(colours),
            )
        )
    return finished(alt.layer(*layers, height=220), datasets, title)
