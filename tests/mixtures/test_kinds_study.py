"""The study of mixture kinds says what its measurements come to."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.mixture_kinds import KINDS, figures, told

STUDY = Path(__file__).parents[2] / "docs/studies/mixture_kinds"


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    rules = json.loads((STUDY / "rules.json").read_text(encoding="utf-8"))
    return figures(pd.read_json(STUDY / "sets.json"), rules)


def test_the_page_has_the_means_of_the_measurements(found: pd.DataFrame) -> None:
    page = (STUDY / "README.md").read_text(encoding="utf-8").replace("−", "-")
    means = found.groupby("kind")[["selected", "slices", "common"]].mean()
    for column, digits in (("selected", 1), ("slices", 2), ("common", 2)):
        cells = " | ".join(f"{means[column][kind]:.{digits}f}" for kind in KINDS)
        assert f"| {cells} |" in page, column


def test_differences_are_over_the_repeats(found: pd.DataFrame) -> None:
    selected = found.pivot(index="repeat", columns="kind", values="selected")
    lines = {line.split("|")[1].strip(): line for line in told(found).splitlines()}
    mean = (selected["designed"] - selected["random"]).mean()
    assert f"{mean:+.3f} [+0.996, +3.847]" in lines["selected"]
    alone = told(found[found["repeat"] == 0])  # of one repeat there is no interval
    assert "[" not in alone
