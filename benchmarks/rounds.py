"""Do rounds make a better rule? The points of two studies with rounds, asked about common sets.

    python -m benchmarks.rounds --read docs/studies/rounds --sets docs/studies/mixture_kinds

Rules of each shape are fitted on the mixtures, and on the mixtures with what some strategies of the
rounds were finetuned on. All are asked about the sets of another study, of the same data and model:
common sets of all kinds, among them the ends of the pool by each indicator, and slices of the
unseen pool. ``--write WAREHOUSE NAME`` adds the points of a finished study to the folder.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.mixture_kinds import COMMON
from benchmarks.shapes import INDICATORS
from im_assets.rule.choosing import Points
from im_assets.rule.refitting import chosen_fit, whole, without_each
from im_resources.study import RuleSettings, Shape

POINTS = "points.json"
SHAPES: tuple[tuple[Shape, ...], ...] = (("line",), ("additive",), ("line", "ridge", "additive"))


def written(warehouse: Path, name: str) -> list[dict[str, object]]:
    """The points of a study, named: no text of its data."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        table = connection.execute("FROM indicator_table").df()
    kept = table[["experiment", "partition", *INDICATORS, "log_loss"]].round(5)
    return [
        {"study": name} | {str(k): v for k, v in row.items()} for row in kept.to_dict("records")
    ]


def mixes(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """What rules are fitted on: the mixtures, and what some strategies added."""
    mixtures = points[points["experiment"] == "mixtures"].drop_duplicates("partition")
    yield "mixtures", mixtures
    for study, part in points[points["experiment"] != "mixtures"].groupby("study", sort=False):
        strategy = part["partition"].str.extract(r"^(.*)-\d+-seed-\d+$")[0]
        yield f"{study}: all", pd.concat([mixtures, part])
        yield f"{study}: rule's sets", pd.concat([mixtures, part[strategy == "rule"]])
        yield f"{study}: random sets", pd.concat([mixtures, part[strategy == "random"]])


def asked(points: pd.DataFrame, sets: pd.DataFrame) -> pd.DataFrame:
    """One row a fit: on what, of which shape, and how it does on points left out and elsewhere."""
    families = {
        "common": sets[sets["family"].isin(COMMON)],
        "ends": sets[sets["family"] == "end"],
        "slices": sets[sets["family"] == "slice"],
    }
    rows = []
    for name, part in mixes(points):
        named = part.assign(partition=[f"point-{i}" for i in range(len(part))])
        measured = Points.of(named, INDICATORS, "log_loss")
        for shapes in SHAPES:
            settings = RuleSettings(shapes=shapes)
            shape, fit = chosen_fit(whole(measured), settings)
            left_out, _ = without_each(measured, settings)
            row: dict[str, object] = {
                "fitted on": name,
                "points": len(measured),
                "shape": shape if len(shapes) == 1 else f"chosen: {shape}",
                "rank, left out": float(spearmanr(left_out, measured.y).statistic),
            }
            for family, others in families.items():
                predicted = fit.predict(others[list(INDICATORS)].to_numpy(float))
                column = "reported_loss" if family == "slices" else "fitted_loss"
                actual = others[column].to_numpy(float)
                if family != "slices":
                    error = np.sqrt(np.mean((actual - predicted) ** 2))
                    row[f"error, {family}"] = float(error)
                row[f"rank, {family}"] = (
                    float(spearmanr(predicted, actual).statistic) if np.ptp(predicted) else 0.0
                )
            rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", type=Path, required=True, help=f"folder with {POINTS}")
    parser.add_argument("--sets", type=Path, help="folder with the sets.json of another study")
    parser.add_argument("--write", nargs=2, metavar=("WAREHOUSE", "NAME"), help="add a study")
    chosen = parser.parse_args()
    path = chosen.read / POINTS
    points = json.loads(path.read_text()) if path.is_file() else []
    if chosen.write is not None:
        warehouse, name = chosen.write
        points = [row for row in points if row["study"] != name] + written(Path(warehouse), name)
        lines = ",\n".join(json.dumps(row) for row in points)
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        return
    if chosen.sets is None:
        parser.error("--sets is missing: which sets the rules are asked about")
    sets = pd.DataFrame(json.loads((chosen.sets / "sets.json").read_text()))
    print(asked(pd.DataFrame(points), sets).to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main()
