"""Does a rule that bends predict better than the line? On the measured sets of a finished study.

    python -m benchmarks.shapes --read docs/studies/mixture_kinds

Every batch of 24 mixtures gives one rule of each shape, and one of the shape that is chosen among
all by the one-standard-error rule. What is compared is their error, and their rank correlation, on
sets that none was fitted on: the common ones, of all kinds, and slices of the unseen pool.
"""

import argparse
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from scipy.stats import spearmanr, t

from benchmarks.mixture_kinds import COMMON
from im_assets.rule.choosing import Points
from im_assets.rule.refitting import chosen_fit, whole
from im_resources.study import RuleSettings, Shape

INDICATORS = ("len_in", "len_out", "reward", "ppl", "mtld", "knn_6", "nat", "coh", "und")
SHAPES: tuple[Shape, ...] = get_args(Shape)
CHOSEN = "chosen among all"
FAMILIES = {"common": COMMON, "slice": ("slice",)}


def rules(sets: pd.DataFrame) -> pd.DataFrame:
    """One row a batch and shape: what it became, its error and Spearman on either family."""
    rows = []
    mixtures = sets[sets["family"] == "mixture"]
    ways = {shape: (shape,) for shape in SHAPES} | {CHOSEN: SHAPES}
    by_kind = mixtures["of"].str.split().str[0]
    parts = [*mixtures.groupby("of"), *((f"{k} 96", p) for k, p in mixtures.groupby(by_kind))]
    for batch, part in [*parts, ("together", mixtures)]:
        points = Points.of(part.rename(columns={"key": "partition"}), INDICATORS, "fitted_loss")
        sample = whole(points)
        for way, shapes in ways.items():
            shape, fit = chosen_fit(sample, RuleSettings(shapes=shapes))
            row = {"points": len(part), "batch": batch, "way": way, "became": shape}
            row["kind"] = str(batch).split()[0]
            for family, members in FAMILIES.items():
                others = sets[sets["family"].isin(members)]
                clipped = others[list(INDICATORS)].clip(points.x.min(0), points.x.max(0), axis=1)
                predicted = fit.predict(clipped.to_numpy(float))
                measured = others["reported_loss" if family == "slice" else "fitted_loss"]
                row[f"{family} rmse"] = float(np.sqrt(np.mean((measured - predicted) ** 2)))
                constant = np.ptp(predicted) == 0
                row[f"{family} rank"] = (
                    0.0 if constant else float(spearmanr(measured, predicted).statistic)
                )
            rows.append(row)
    return pd.DataFrame(rows)


def told(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over the batches, and the difference to the line with its 95 % interval (paired t)."""
    line = found[found["way"] == "line"].set_index("batch")
    rows = []
    for way, part in found.groupby("way", sort=False):
        mine = part.set_index("batch")
        row: dict[str, object] = {"shape": way}
        for column in ("common rmse", "common rank", "slice rank"):
            apart = (mine[column] - line[column]).to_numpy()
            row[column] = f"{mine[column].mean():.3f}"
            ends = ""
            if len(apart) > 1:
                half = t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
                ends = f" [{apart.mean() - half:+.3f}, {apart.mean() + half:+.3f}]"
            row[f"{column} − line"] = "" if way == "line" else f"{apart.mean():+.3f}{ends}"
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", type=Path, required=True, help="folder with sets.json")
    chosen = parser.parse_args()
    found = rules(pd.DataFrame(json.loads((chosen.read / "sets.json").read_text())))
    for points, part in found.groupby("points"):
        kinds = ["all", *part["kind"].unique()] if points == found["points"].min() else ["all"]
        for kind in kinds:
            some = part if kind == "all" else part[part["kind"] == kind]
            print(
                f"\nfitted on {points} points, {kind}: {some['batch'].nunique()} rules of a shape"
            )
            print(told(some).to_markdown(index=False))
        became = part[part["way"] == CHOSEN]["became"].value_counts()
        print(f"\nchosen among all: {', '.join(f'{s} {c}' for s, c in became.items())}")


if __name__ == "__main__":
    main()
