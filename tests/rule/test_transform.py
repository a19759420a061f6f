"""Reading indicators on a robust scale: of examples, of points, and without the library."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.rule.document import from_json, to_json
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import Coefficient, Rule
from im_assets.rule.published import published_rule
from im_assets.rule.transform import scale_of, scaled, transformed
from im_resources.study import RuleSettings
from tests.rule.data import random_study

RULE = Rule(
    source="fitted",
    constant=Coefficient(name="constant", estimate=1.0),
    coefficients=(
        Coefficient(name="mtld", estimate=-0.5, low=math.log(11), high=math.log(71)),
        Coefficient(name="reward", estimate=2.0, low=-math.log(3), high=0.0),
    ),
    transform="log",
    winsorize=True,
)
CASES = [  # by hand: mtld 70 is log 71 and at its end; reward -2 is -log 3
    ((70.0, -2.0), 1 - 0.5 * math.log(71) - 2 * math.log(3)),
    ((500.0, -9.0), 1 - 0.5 * math.log(71) - 2 * math.log(3)),
    ((0.0, 5.0), 1 - 0.5 * math.log(11)),
    ((30.0, -1.0), 1 - 0.5 * math.log(31) - 2 * math.log(2)),
]


def examples(*rows: tuple[float, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["mtld", "reward"])


@pytest.mark.parametrize(("values", "expected"), CASES)
def test_an_example_is_transformed_and_cut_to_the_points(
    values: tuple[float, ...], expected: float
) -> None:
    frame = examples(values)
    assert RULE.predict_examples(frame) == pytest.approx([expected])
    assert frame.equals(examples(values))  # the values stay as they are


def test_a_point_is_on_the_scale_already_and_is_not_cut() -> None:
    point = pd.DataFrame([{"mtld": 5.0, "reward": -3.0}])
    assert RULE.predict_points(point) == pytest.approx([1 - 0.5 * 5 + 2 * -3])


def test_the_document_alone_is_enough_to_apply_a_rule() -> None:
    """The recipe of docs/rule.md, in plain Python."""
    table = random_study(rows=24, slopes=(0.5, -0.3, 0.0)).assign(transform="log")
    fitted = fit_rule(table, ["x0", "x1", "x2"], RuleSettings(permutations=19))
    assert fitted.transform == "log"
    assert fitted.winsorize
    for rule, names in ((RULE, ["mtld", "reward"]), (fitted, ["x0", "x1", "x2"])):
        document = json.loads(to_json(rule))["rule"]

        def predicted(example: Mapping[Any, float], rule: Any = document) -> float:
            value = rule["constant"]["estimate"]
            for term in rule["coefficients"]:
                v = example[term["name"]]
                v = math.copysign(math.log1p(abs(v)), v) if rule["transform"] == "log" else v
                v = min(max(v, term["low"]), term["high"]) if rule["winsorize"] else v
                value += term["estimate"] * v
            return value

        frame = pd.DataFrame(
            np.random.default_rng(0).normal(0, 40, (50, len(names))), columns=names
        )
        by_hand = [predicted(row) for row in frame.to_dict("records")]
        assert rule.predict_examples(frame) == pytest.approx(by_hand, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=40),
    st.randoms(use_true_random=False),
)
def test_a_prediction_does_not_depend_on_the_other_examples(
    rows: list[tuple[float, float]], random: Any
) -> None:
    whole = RULE.predict_examples(examples(*rows))
    kept = sorted(random.sample(range(len(rows)), len(rows) // 2))
    assert list(RULE.predict_examples(examples(*[rows[i] for i in kept]))) == list(whole[kept])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), min_size=2))
def test_the_scale_keeps_order_and_sign(values: list[float]) -> None:
    found = transformed(np.array(sorted(values)), "log")
    assert (np.diff(found) >= 0).all()
    assert list(np.sign(found)) == [np.sign(v) for v in sorted(values)]
    assert list(transformed(np.array(values), "none")) == values


def test_the_limits_are_those_of_the_points_and_in_the_id() -> None:
    table = random_study()
    rules = {
        cut: fit_rule(table, ["x0", "x1"], RuleSettings(permutations=19, winsorize=cut))
        for cut in (True, False)
    }
    for rule in rules.values():
        for term in rule.coefficients:
            assert (term.low, term.high) == (table[term.name].min(), table[term.name].max())
    assert (
        rules[True].predict_points(table).tolist() == rules[True].predict_examples(table).tolist()
    )
    assert rules[True].id != rules[False].id
    logs = fit_rule(
        table.assign(transform="log"), ["x0", "x1"], RuleSettings(permutations=19, winsorize=False)
    )
    assert logs.id != rules[False].id
    assert "log1p(x0)" in logs.formula


def test_a_rule_of_an_older_document_reads_values_as_they_are_and_keeps_its_id() -> None:
    rule = published_rule("published_v1")
    assert rule.id == "b3537c712fad6af1"
    document = json.loads(
        to_json(RULE.model_copy(update={"transform": "none", "winsorize": False}))
    )
    old = document["rule"]
    for name in ("transform", "winsorize", "chance"):
        del old[name]
    for term in (old["constant"], *old["coefficients"]):
        del term["low"], term["high"]
        term |= {"t": 2.5, "p": 0.02}
    read = from_json(json.dumps({**document, "version": 3, "rule": old | {"f_p": 0.01}}))
    assert (read.transform, read.winsorize, read.beyond_chance) == ("none", False, None)
    assert read.predict_examples(examples((500.0, -9.0))) == pytest.approx([1 - 250 - 18])
    assert read.id == RULE.model_copy(update={"transform": "none", "winsorize": False}).id


def test_a_cut_without_ends_and_a_mixed_scale_are_refused() -> None:
    document = to_json(RULE).replace(f'"low": {math.log(11)}', '"low": null')
    with pytest.raises(ValueError, match="winsorize needs low and high of mtld"):
        from_json(document)
    with pytest.raises(ValueError, match=r"\['log', 'none'\]"):
        scale_of(pd.DataFrame({"transform": ["log", "none"]}))
    assert scale_of(pd.DataFrame({"x": [1]})) == "none"
    assert [scaled("mtld", "none"), scaled("mtld", "log")] == ["mtld", "log1p(mtld)"]
