"""Indicators that tell no examples apart are named."""

from pathlib import Path

import dagster as dg
import pandas as pd

from im_assets.scoring.checks import apart_check, commonest
from im_resources.warehouse import Warehouse


def warehouse_of(folder: Path, **columns: list[float]) -> Warehouse:
    frames = [
        pd.DataFrame({"example_id": map(str, range(len(v))), "indicator": name, "value": v})
        for name, v in columns.items()
    ]
    warehouse = Warehouse(folder / "w.duckdb")
    warehouse.replace_table("example_scores", pd.concat(frames, ignore_index=True))
    return warehouse


def test_the_commonest_value_and_its_share(tmp_path: Path) -> None:
    found = commonest(
        "example_scores", warehouse_of(tmp_path, a=[1.0, 1.0, 2.0, 3.0], b=[5.0, 4.0, 4.0, 5.0])
    )
    assert [(one.indicator, one.value, one.share) for one in found] == [
        ("a", 1.0, 0.5),
        ("b", 4.0, 0.5),
    ]


def checked(warehouse: Warehouse) -> dg.AssetCheckResult:
    check = apart_check("example_scores")
    result = check(warehouse)
    assert isinstance(result, dg.AssetCheckResult)
    return result


def test_a_degenerate_indicator_is_a_warning_with_what_to_do(tmp_path: Path) -> None:
    result = checked(
        warehouse_of(
            tmp_path,
            good=[float(i) for i in range(100)],
            constant=[3.0] * 100,
            nearly=[0.0] * 95 + [1.0, 2.0, 3.0, 4.0, 5.0],
            not_quite=[0.0] * 94 + [1.0] * 6,
        )
    )
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    told = str(result.description)
    assert "constant is 3 for every example" in told
    assert "nearly is 0 for 95.0% of the examples" in told
    assert "scoring.indicators" in told
    assert "good" not in told
    assert "not_quite" not in told


def test_indicators_that_vary_pass(tmp_path: Path) -> None:
    assert checked(warehouse_of(tmp_path, good=[1.0, 2.0, 3.0])).passed
