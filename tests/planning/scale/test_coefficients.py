"""The file of coefficients: the project's own, and what is wrong with others."""

import json
from pathlib import Path
from typing import Any

import pytest

from im_assets.planning.scale.coefficients import (
    FILE,
    UNITS,
    CoefficientError,
    Coefficients,
    coefficients,
    read,
)
from im_assets.planning.scale.machines import MACHINES
from im_assets.planning.scale.needs import SPAN, needs_of
from im_assets.planning.scale.ranges import Range
from im_assets.planning.scale.totals import Question

H100 = MACHINES["h100"]


def changed(folder: Path, **coefficient: dict[str, Any]) -> Path:
    """The project's file with some fields of some coefficients changed."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    for name, fields in coefficient.items():
        content[name] = content.get(name, {}) | fields
    path = folder / "coefficients.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def measured(folder: Path, name: str, low: float | None, high: float | None) -> Coefficients:
    return read(changed(folder, **{name: {"low": low, "high": high}}))


def test_every_coefficient_that_is_read_is_there_with_a_source() -> None:
    found = coefficients()
    assert set(found) == set(UNITS)
    assert all(one.source and one.unit == UNITS[name] for name, one in found.all.items())


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("text_share", {"unit": "B"}, "text_share.unit: 'B'; expected 'B/(B of text)'"),
        ("text_share", {"kind": "guessed"}, "text_share.kind: 'guessed'; expected one of measured"),
        ("text_share", {"source": ""}, "text_share.source: empty"),
        ("text_share", {"low": 5, "high": 3}, "text_share: from 5.0 to 3.0"),
        ("text_share", {"low": None}, "text_share: low None, high 0.75: two numbers, or null"),
        ("text_share", {"low": "0.3"}, "text_share: low '0.3'"),
        ("text_share", {"low": 0}, "text_share.low: 0; expected more than 0"),
        ("text_share", {"note": "x"}, "text_share: expected the fields low, high, unit"),
        ("disc_bytes", {"low": 1}, "unknown: disc_bytes; nothing reads it"),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path, name: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(CoefficientError) as error:
        read(changed(tmp_path, **{name: fields}))
    assert said in str(error.value)
    assert "coefficients.json" in str(error.value)


def test_a_missing_one_and_a_broken_file_are_named(tmp_path: Path) -> None:
    content = json.loads(FILE.read_text(encoding="utf-8"))
    del content["commit_seconds"]
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CoefficientError, match="missing: commit_seconds"):
        read(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(CoefficientError, match=r"other\.json"):
        read(path)


def test_what_is_null_is_not_measured_and_what_is_filled_in_counts(tmp_path: Path) -> None:
    totals = Question("7b").totals()
    unknown = measured(tmp_path, "commit_seconds", None, None)
    busy = needs_of(totals, H100, known=unknown).figures["catalog busy"]
    assert (busy.value, busy.why) == (None, "not measured")
    assert "commit_seconds" in unknown.unmeasured
    known = measured(tmp_path, "commit_seconds", 0.1, 0.2)
    needs = needs_of(totals, H100, known=known)
    commits = needs["catalog commits"]
    assert commits is not None
    assert needs["catalog busy"] == commits * Range(0.1, 0.2) * (1 / 3600)


def test_scheduling_is_added_once_it_is_measured(tmp_path: Path) -> None:
    totals = Question("7b").totals()
    without = needs_of(totals, H100, 8, known=measured(tmp_path, "scheduling_share", None, None))
    with_it = needs_of(totals, H100, 8, known=measured(tmp_path, "scheduling_share", 0.0, 0.5))
    before, after = without[SPAN], with_it[SPAN]
    assert before is not None
    assert after is not None
    assert after.low == pytest.approx(before.low)
    assert after.high == pytest.approx(before.high * 1.5, rel=1e-3)  # but for start and end
    assert with_it["GPU time together"] == without["GPU time together"]


def test_nothing_can_be_told_without_some(tmp_path: Path) -> None:
    unknown = measured(tmp_path, "run_seconds", None, None)
    with pytest.raises(CoefficientError, match="run_seconds: null"):
        needs_of(Question("7b").totals(), H100, known=unknown)
