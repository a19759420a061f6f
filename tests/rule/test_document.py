import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.rule.document import (
    coefficient_table,
    from_json,
    load_rule,
    read_rule,
    to_json,
    write_rule,
)
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import Coefficient, Rule
from im_assets.rule.published import published_rule
from im_resources.study import RuleSettings
from tests.rule.data import random_study

NAMES = ["x0", "x1", "x2"]
FITTED = fit_rule(random_study(), NAMES, RuleSettings())
EMPTY = fit_rule(random_study(), NAMES, RuleSettings(choose="stepwise", p_enter=1e-300))
RULES = [FITTED, EMPTY, published_rule("published_v1"), published_rule("published_v2")]
finite_floats = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("rule", RULES, ids=["fitted", "empty", "v1", "v2"])
def test_a_rule_survives_json_a_file_and_the_warehouse(rule: Rule, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(to_json(rule), parse_constant=refuse)  # strict JSON
    assert from_json(to_json(rule)) == rule
    write_rule(rule, tmp_path / "study" / "quality_rule.json")
    assert read_rule(tmp_path / "study" / "quality_rule.json") == rule
    assert [p.name for p in (tmp_path / "study").iterdir()] == ["quality_rule.json"]
    stored = duckdb.from_df(coefficient_table(rule))
    assert load_rule(stored.df()) == rule
    # Also without any number in a column, the warehouse gets the same types.
    types = {name: str(type_) for name, type_ in zip(stored.columns, stored.types, strict=True)}
    assert types["f"] == types["std_error"] == types["loo_spearman"] == "DOUBLE"
    assert types["n"] == "BIGINT"


@settings(max_examples=100, deadline=None)
@given(constant=finite_floats, slopes=st.lists(finite_floats, min_size=3, max_size=3))
def test_a_rule_read_back_predicts_identically(constant: float, slopes: list[float]) -> None:
    rule = Rule(
        source="fitted",
        constant=Coefficient(name="constant", estimate=constant),
        coefficients=tuple(
            Coefficient(name=n, estimate=b) for n, b in zip(NAMES, slopes, strict=True)
        ),
    )
    frame = random_study()
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(
            from_json(to_json(rule)).predict_examples(frame), rule.predict_examples(frame)
        )


def test_the_table_has_one_row_a_term_with_the_numbers_of_the_rule() -> None:
    table = coefficient_table(FITTED)
    assert list(table["term"]) == ["constant", *FITTED.indicators]
    assert list(table["estimate"]) == [
        FITTED.intercept, *(c.estimate for c in FITTED.coefficients)
    ]  # fmt: skip
    assert (table["loo_spearman"] == FITTED.loo_spearman).all()
    assert (table["n"] == 24).all()


def test_foreign_documents_are_refused() -> None:
    document = json.loads(to_json(FITTED))
    with pytest.raises(ValueError, match="not a JSON"):
        from_json("{")
    with pytest.raises(ValueError, match="strict JSON: NaN"):
        from_json(to_json(FITTED).replace('"r2": ', '"r2": NaN, "x": '))
    with pytest.raises(ValueError, match="format"):
        from_json("[]")
    with pytest.raises(ValueError, match="version 99"):
        from_json(json.dumps(document | {"version": 99}))
    with pytest.raises(ValueError, match="damaged"):
        from_json(json.dumps(document | {"rule": {"source": "fitted"}}))
    with pytest.raises(ValueError, match="found 0"):
        load_rule(pd.DataFrame())


def test_a_failed_write_keeps_the_old_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "quality_rule.json"
    write_rule(FITTED, path)

    def full_disk(_: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_rule(EMPTY, path)
    assert read_rule(path) == FITTED
    assert [p.name for p in tmp_path.iterdir()] == ["quality_rule.json"]


def test_a_document_of_version_1_is_read_with_its_warnings() -> None:
    document = json.loads(to_json(EMPTY))
    document["version"] = 1
    document["rule"]["warnings"] = ["no indicator entered"]
    for step in document["rule"]["path"]:
        del step["reason"]
    [warning] = from_json(json.dumps(document)).warnings
    assert (warning.kind, warning.note) == ("unspecified", "no indicator entered")


def test_published_rules_are_the_paper_s() -> None:
    row = pd.DataFrame([{"reward": 2.0, "len_out": 100.0, "knn_6": 0.5}])
    v1 = 1.0684 - 0.1498 * 2 + 8.257e-5 * 100 - 0.9350 * 0.5
    assert published_rule("published_v1").predict_examples(row) == pytest.approx([v1])
    row = pd.DataFrame([{"reward": 2.0, "und": 0.9, "nat": 0.8, "coh": 0.7}])
    v2 = 0.0274 - 0.0078 * 2 + 0.4421 * 0.9 - 0.3212 * 0.8 - 0.1520 * 0.7
    rule = published_rule("published_v2")
    assert rule.predict_examples(row) == pytest.approx([v2])
    assert [w.kind for w in rule.warnings] == ["published"]
    assert "reward model" in rule.warnings[0].note
    assert rule.r2 is None
    assert rule.formula.startswith("log_loss = 0.0274 - 0.0078 reward + 0.4421 und")


def test_a_frame_without_an_indicator_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"published_v1.*len_out, knn_6; it has: reward"):
        published_rule("published_v1").predict_examples(pd.DataFrame({"reward": [1.0]}))
    frame = random_study().assign(x0=np.nan)
    with pytest.raises(ValueError, match="x0: 24 of 24 values"):
        FITTED.predict_examples(frame)
    assert EMPTY.predict_examples(pd.DataFrame(index=range(3))).shape == (3,)


def test_a_prediction_does_not_depend_on_the_other_rows() -> None:
    table = random_study(rows=300, slopes=np.linspace(0.1, 0.9, 9).tolist())
    names = tuple(f"x{i}" for i in range(9))
    rule = fit_rule(table[:60], names, RuleSettings(max_indicators=9))
    assert rule.indicators == names
    alone = [rule.predict_examples(table.iloc[[i]])[0] for i in range(len(table))]
    assert alone == list(rule.predict_examples(table))
