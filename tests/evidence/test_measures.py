"""Do other measures rank the sets as the target does: by hand, whatever the directions."""

import numpy as np
import pandas as pd
import pytest

from im_assets.evidence.measures import COLUMNS, measure_agreement
from im_assets.experiments.measures import Measure
from im_assets.rule.target import Target

LOSS = Target()


def _measure(name: str, higher: bool = True) -> Measure:
    return Measure(name, lambda rows: 0.0, 1, "answers", direction="higher" if higher else "lower")


def _points(**columns: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_agreement_is_turned_so_that_both_are_better_upwards() -> None:
    rng = np.random.default_rng(0)
    log_loss = rng.normal(0, 1, 40)
    points = _points(
        log_loss=log_loss,
        accuracy=-log_loss + rng.normal(0, 0.3, 40),
        mistakes=log_loss + rng.normal(0, 0.3, 40),
        harm=-log_loss + rng.normal(0, 0.3, 40),
        noise=rng.normal(0, 1, 40),
    )
    others = [_measure("accuracy"), _measure("mistakes", False), _measure("harm", False),
              _measure("noise")]  # fmt: skip
    found = measure_agreement(points, LOSS, others, resamples=200)
    assert list(found.columns) == list(COLUMNS)
    assert found["verdict"].tolist() == ["alike", "alike", "opposed", "open"]
    assert (found["spearman"].iloc[:2] > 0.9).all()
    inside = found.dropna(subset=["low"])
    assert (inside["low"] <= inside["spearman"]).all()
    assert (inside["spearman"] <= inside["high"]).all()
    assert found["note"].iloc[0] == "the loss stands well for the accuracy"
    assert found["note"].iloc[2] == "sets that are good by the loss are bad by the harm"


def test_a_target_of_another_direction_is_turned_too() -> None:
    target = Target("accuracy", "identity", "higher")
    values = np.arange(8.0)
    points = _points(accuracy=values, loss=-values)
    found = measure_agreement(points, target, [_measure("loss", False)])
    assert found["spearman"].tolist() == [1.0]
    assert found["verdict"].tolist() == ["alike"]  # perfect order of eight is no chance


def test_nothing_is_said_of_few_or_equal_points() -> None:
    three = _points(log_loss=np.arange(3.0), accuracy=np.arange(3.0))
    found = measure_agreement(three, LOSS, [_measure("accuracy")])
    assert (found["verdict"].item(), found["note"].item()) == (
        "undefined", "not defined: 3 points are too few"
    )  # fmt: skip
    flat = _points(log_loss=np.arange(9.0), accuracy=np.zeros(9))
    assert measure_agreement(flat, LOSS, [_measure("accuracy")])["verdict"].item() == "undefined"
    four = _points(log_loss=np.arange(4.0), accuracy=-np.arange(4.0))
    assert measure_agreement(four, LOSS, [_measure("accuracy")])["verdict"].item() == "open"


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="lacks the column"):
        measure_agreement(_points(log_loss=np.arange(5.0)), LOSS, [_measure("accuracy")])
