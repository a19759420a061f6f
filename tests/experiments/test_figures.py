import pandas as pd

from im_assets.common.charts.drawing import svg
from im_assets.experiments.figures import training_figure, trial_values_figure
from im_assets.rule.target import Target

TABLE = pd.DataFrame({"partition": ["a", "b", "c"], "loss": [2.2, 2.0, 2.1]})


def test_trials_are_drawn_in_rising_order_with_the_base_model() -> None:
    chart = trial_values_figure(TABLE, 2.25)
    assert [(p["x"], p["y"], p["text"]) for p in chart["datasets"]["mixtures"]] == [
        (1, 2.0, "b: loss 2.0000"),
        (2, 2.1, "c: loss 2.1000"),
        (3, 2.2, "a: loss 2.2000"),
    ]
    assert ">base model 2.2500<" in svg(chart, 680, "alt")


def test_a_base_model_far_away_does_not_squeeze_the_trials() -> None:
    assert "\u2191 base model 4.0000, beyond the axis" in svg(
        trial_values_figure(TABLE, 4.0), 680, "alt"
    )


def test_another_experiment_names_its_trials_and_target() -> None:
    rates = TABLE.rename(columns={"loss": "win_rate"})
    target = Target("win_rate", "logit", "higher")
    drawn = svg(trial_values_figure(rates, None, "bins", target), 680, "alt")
    assert "bins, from the lowest win rate to the highest" in drawn
    assert ">win rate<" in drawn


def test_a_training_curve_shows_every_step() -> None:
    [points] = training_figure([3.0, 2.5, 2.4], "seed-000")["datasets"].values()
    assert [(p["x"], p["y"]) for p in points] == [(1, 3.0), (2, 2.5), (3, 2.4)]
