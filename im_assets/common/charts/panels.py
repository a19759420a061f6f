"""Several charts as one figure: small ones side by side, or wide ones below each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from im_assets.common.charts.look import Chart, data_name


def panels_chart(charts: Sequence[Chart], columns: int, title: str = "") -> Chart:
    """The charts as one specification; each keeps its own data and legend.

    Args:
        charts: at least one; the title of each names its data sets.
        columns: side by side, at most; fewer where the room is narrow.
    """
    datasets: dict[str, Any] = {}
    parts = []
    for place, chart in enumerate(charts):
        names = {}
        for key, rows in chart["datasets"].items():
            names[key] = data_name(f"{chart.get('title', '')} {key}", datasets)
            datasets[names[key]] = rows
        part = _renamed(chart, names, f"panel_{place}_")
        parts.append({k: v for k, v in part.items() if k not in ("$schema", "datasets")})
    together = {"$schema": charts[0]["$schema"], "datasets": datasets, "concat": parts,
                "columns": columns}  # fmt: skip
    return together | ({"title": title} if title else {})


def panels(chart: Chart) -> list[Chart]:
    """The single charts of a figure, each complete with its own data."""
    parts = chart.get("concat")
    if parts is None:
        return [chart]
    return [
        {**part, "$schema": chart["$schema"],
         "datasets": {k: v for k, v in chart["datasets"].items() if k in _data_names(part)}}
        for part in parts
    ]  # fmt: skip


def _renamed(part: Chart, names: Mapping[str, str], prefix: str) -> Chart:
    """The chart with its data sets named anew, and its layers' names made unique."""
    made = dict(part)
    if "name" in part:
        made["name"] = prefix + part["name"]
    if (data := part.get("data")) and data.get("name") in names:
        made["data"] = {"name": names[data["name"]]}
    if "layer" in part:
        made["layer"] = [_renamed(layer, names, prefix) for layer in part["layer"]]
    return made


def _data_names(part: Chart) -> set[str]:
    found = {part["data"]["name"]} if "name" in part.get("data", {}) else set()
    return found.union(*(_data_names(layer) for layer in part.get("layer", ())))
