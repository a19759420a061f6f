"""What the rule predicts: its columns and words, scales and directions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.experiments.measures import MeasureError
from im_assets.rule.target import Target
from tests.experiments.measures.test_registry import JUDGE, study_with


def target_of(asked: Any, **blocks: Any) -> Target:
    return Target.of(study_with(rule={"target": asked}, **blocks))


def test_the_papers_target_by_default() -> None:
    target = Target.of(study_with())
    assert target == Target("loss", "log", "lower")
    assert (target.column, target.predicted_column) == ("log_loss", "predicted_log_loss")
    assert (target.label, target.best, target.better_side) == ("log loss", "lowest", "left")


def test_a_measure_brings_its_own_scale_and_direction() -> None:
    target = target_of("exact_match")
    assert target == Target("exact_match", "logit", "higher")
    assert target.column == "logit_exact_match"
    assert (target.label, target.best) == ("logit of exact match", "highest")


def test_the_profile_may_say_otherwise() -> None:
    target = target_of({"measure": "win_rate", "scale": "identity"}, judge=JUDGE)
    assert (target.column, target.label, target.direction) == ("win_rate", "win rate", "higher")


def test_a_published_rule_predicts_the_log_loss_only() -> None:
    rule = {"source": "published_v1", "target": "exact_match"}
    with pytest.raises(MeasureError, match=r"rule\.target: published_v1 predicts the log loss"):
        Target.of(study_with(rule=rule))
    assert Target.of(study_with(rule={"source": "published_v1"})) == Target()


@given(st.lists(st.floats(0.001, 0.999), min_size=1), st.sampled_from(["log", "logit", "identity"]))
def test_scales_keep_the_order_and_can_be_undone(values: list[float], scale: Any) -> None:
    target, x = Target("m", scale, "higher"), np.array(values)
    moved = target.transform(x)
    assert np.allclose(target.inverse(moved), x)
    assert (np.diff(moved[np.argsort(x)]) >= 0).all()


def test_shares_of_none_and_all_are_corrected_by_half_an_observation() -> None:
    target = Target("exact_match", "logit", "higher")
    moved = target.transform(np.array([0.0, 0.5, 1.0]), n=9)
    assert moved == pytest.approx([np.log(0.05 / 0.95), 0, np.log(0.95 / 0.05)])
    with pytest.raises(ValueError, match="scale: identity"):
        target.transform(np.array([0.0, 0.5]))


def test_values_that_a_scale_cannot_hold_are_named() -> None:
    with pytest.raises(ValueError, match="only positive values have a logarithm"):
        Target("m", "log", "lower").transform(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="only shares between 0 and 1 have a logit"):
        Target("m", "logit", "lower").transform(np.array([0.5, 1.5]))
