import base64
import io
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from PIL import Image

from im_assets.common.charts.drawing import MAX_BYTES, png
from im_assets.common.charts.look import Chart
from im_assets.common.presentation import markdown
from im_assets.evidence.assets import rule_evidence
from im_assets.evidence.evidence import rule_findings
from im_assets.evidence.figures import (
    decision_figure,
    design_figure,
    inclusion_figure,
    learning_curve_figure,
    left_out_figure,
    permutation_figure,
    residual_figure,
)
from im_assets.evidence.findings import COLUMNS
from im_assets.rule.document import coefficient_table
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import Rule
from im_resources.study import Study
from im_resources.warehouse import Warehouse
from im_resources.warehouse_io_manager import WarehouseIOManager
from tests.rule.data import random_study
from tests.rule.test_assets import NAMES, make_study

TABLE = random_study(rows=16)
SOURCES = dict(zip(TABLE["partition"], TABLE["largest_source"], strict=True))


def materialize(rule: Rule, study: Study, path: Path) -> dg.ExecuteInProcessResult:
    def made(name: str, frame: pd.DataFrame) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def table() -> pd.DataFrame:
            return frame

        return table

    return dg.materialize(
        [
            made("indicator_table", TABLE),
            made("quality_rule", coefficient_table(rule)),
            rule_evidence,
        ],
        resources={"study": study, "io_manager": WarehouseIOManager(database=str(path))},
    )


def quick(**rule: object) -> Study:
    return make_study(seeds=16, bootstrap=20, permutations=19, **rule)


def test_the_asset_stores_the_findings_and_shows_them(tmp_path: Path) -> None:
    study, path = quick(), tmp_path / "study.duckdb"
    rule = fit_rule(TABLE, NAMES, study.rule)
    result = materialize(rule, study, path)
    stored = Warehouse(path).read_table("rule_evidence")
    expected = rule_findings(TABLE, SOURCES, rule, study.rule, sources=len(study.data.candidates))
    assert list(stored.columns) == [*COLUMNS, "rule_id"]
    assert set(stored["rule_id"]) == {rule.id}
    pd.testing.assert_frame_equal(stored[list(COLUMNS)], expected, check_dtype=False)
    [event] = result.asset_materializations_for_node("rule_evidence")
    assert event.metadata["rule"].value == rule.id
    text = str(event.metadata["summary"].value)
    verdict = expected.loc[expected["item"] == "verdict", "note"].item()
    assert markdown(f"more mixtures? {verdict}") in text
    assert "- Spearman on sources left out" in text
    assert "- pairs ordered rightly" in text
    for name in ("learning curve", "inclusion frequencies", "permutation null"):
        data = str(event.metadata[name].value).partition("base64,")[2].rstrip(")")
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        assert image.width == 900


@pytest.mark.parametrize(
    "figure",
    [
        decision_figure,
        design_figure,
        inclusion_figure,
        learning_curve_figure,
        left_out_figure,
        permutation_figure,
        residual_figure,
    ],
)
def test_figures_are_small_and_absent_where_there_is_nothing_to_show(
    figure: Callable[[pd.DataFrame], Chart | None],
) -> None:
    study = quick()
    rule = fit_rule(TABLE, NAMES, study.rule)
    findings = rule_findings(TABLE, SOURCES, rule, study.rule)
    chart = figure(findings)
    assert chart is not None
    assert len(png(chart)) <= MAX_BYTES
    assert figure(findings[:0]) is None
