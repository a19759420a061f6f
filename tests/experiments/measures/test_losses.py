"""The evaluation losses by hand: three outputs of two instructions."""

import pandas as pd
import pytest

from im_assets.experiments.measures import MEASURES, measure_of
from im_resources.study import EvaluationSettings

ROWS = pd.DataFrame(
    {
        "eval_id": ["a", "a", "b"],
        "output_index": [0, 1, 0],
        "nll": [2.0, 12.0, 30.0],
        "tokens": [2, 4, 10],
    }
).assign(loss=lambda rows: rows["nll"] / rows["tokens"])


def _value(name: str, **settings: str) -> float:
    return measure_of(name, EvaluationSettings.model_validate(settings), "rule.target").of(ROWS)


def test_token_weighted_is_over_all_tokens() -> None:
    assert _value("token_loss") == pytest.approx(44 / 16)


def test_instruction_weighted_is_the_mean_of_means() -> None:
    assert _value("instruction_loss") == pytest.approx(((1 + 3) / 2 + 3) / 2)


def test_loss_is_the_one_that_the_profile_weights() -> None:
    assert _value("loss") == _value("token_loss")
    assert _value("loss", weighting="instruction") == _value("instruction_loss")


def test_lower_is_better_on_the_log_scale() -> None:
    for name in ("loss", "token_loss", "instruction_loss"):
        found = MEASURES.all()[name]
        assert (found.scale, found.direction, found.reads) == ("log", "lower", "losses")
