"""The page about rounds on real data says what its points come to."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.mixture_kinds import COMMON
from benchmarks.rounds import mixes
from benchmarks.shapes import INDICATORS
from im_assets.rule.choosing import Points
from im_assets.rule.refitting import chosen_fit, whole
from im_resources.study import RuleSettings, Shape

STUDIES = Path(__file__).parents[2] / "docs/studies"


@pytest.mark.parametrize("shape", ["line", "additive"])
def test_the_page_has_the_errors_on_the_common_sets(shape: Shape) -> None:
    page = (STUDIES / "rounds/README.md").read_text(encoding="utf-8").replace("−", "-")
    points = pd.read_json(STUDIES / "rounds/points.json")
    sets = pd.DataFrame(json.loads((STUDIES / "mixture_kinds/sets.json").read_text("utf-8")))
    common = sets[sets["family"].isin(COMMON)]
    told = {"mixtures": 24, "rounds of lines: all": 60, "rounds of any shape: all": 51}
    for name, part in mixes(points):
        if name not in told:
            continue
        named = part.assign(partition=[f"point-{i}" for i in range(len(part))])
        measured = Points.of(named, INDICATORS, "log_loss")
        _, fit = chosen_fit(whole(measured), RuleSettings(shapes=(shape,)))
        predicted = fit.predict(common[list(INDICATORS)].to_numpy(float))
        error = ((predicted - common["fitted_loss"]) ** 2).mean() ** 0.5
        rank = pd.Series(predicted).corr(common["fitted_loss"].reset_index(drop=True), "spearman")
        assert f"| {told[name]} | {shape} |" in page
        [line] = [one for one in page.splitlines() if f"| {told[name]} | {shape} |" in one]
        assert f" {error:.3f} | {rank:.2f} |" in line
