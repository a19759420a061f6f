"""The univariate table: bins with their losses, correlations, and the paper's signs."""

import numpy as np
import pandas as pd
import pytest

from im_assets.common.charts.drawing import svg
from im_assets.common.charts.panels import panels
from im_assets.experiments.experiment import bin_key
from im_assets.univariate.figures import univariate_figure
from im_assets.univariate.study import bin_table, univariate_correlations


def samples(indicator: str, means: list[float]) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame(
            {
                "bin": bin_key(indicator, number),
                "indicator": indicator,
                "number": number,
                "value": [mean - 1, mean + 1],
            }
        )
        for number, mean in enumerate(means)
    )


def test_a_bin_has_its_mean_and_its_loss() -> None:
    losses = {bin_key("ppl", i): 2.0 + i for i in range(4)}
    table = bin_table(samples("ppl", [40, 30, 20, 10]), losses)
    assert table["mean"].tolist() == [40, 30, 20, 10]
    assert table["loss"].tolist() == [2, 3, 4, 5]
    assert table["log_loss"].tolist() == pytest.approx(np.log([2, 3, 4, 5]))
    assert table["examples"].tolist() == [2] * 4


def test_bins_lie_beside_the_mixtures_on_their_scale() -> None:
    """A mean of logs, next to mixtures of such means; alone, bins are as they are."""
    losses = {bin_key("ppl", i): 2.0 + i for i in range(4)}
    bins = bin_table(samples("ppl", [40, 30, 20, 10]), losses, transform="log")
    assert bins["mean"].tolist() == [40, 30, 20, 10]
    expected = [(np.log(m) + np.log(m + 2)) / 2 for m in (40, 30, 20, 10)]
    assert bins["scaled_mean"].tolist() == pytest.approx(expected)
    mixtures = pd.DataFrame(
        {"partition": ["seed-000"], "ppl": [3.2], "log_loss": [1.0], "transform": "log"}
    )
    for beside, values, axis in (
        (mixtures, expected, "mean log1p(ppl)"),
        (None, [40, 30, 20, 10], "mean ppl"),
    ):
        [panel] = panels(univariate_figure(bins, beside))
        assert [p["x"] for p in panel["datasets"]["ppl_bins"]] == pytest.approx(values)
        assert axis in svg(panel, 328, "alt")


def test_bins_in_the_order_of_their_number_also_beyond_nine() -> None:
    count = 12
    losses = {bin_key("ppl", i): 2.0 for i in range(count)}
    table = bin_table(samples("ppl", list(map(float, range(count)))), losses)
    assert table["bin"].tolist() == list(range(count))


def table(slope: float, noise: float, name: str) -> pd.DataFrame:
    generator = np.random.Generator(np.random.PCG64(5))
    mean = np.arange(8.0)
    return pd.DataFrame(
        {
            "indicator": name,
            "bin": range(8),
            "mean": mean,
            "log_loss": slope * mean + noise * generator.standard_normal(8),
        }
    )


@pytest.mark.parametrize(
    ("name", "slope", "agrees", "words"),
    [
        ("ppl", 1.0, True, "rises with it, as in the paper"),
        ("ppl", -1.0, False, "falls with it; in the paper it rises"),
        ("reward", -1.0, True, "falls with it, as in the paper"),
        ("len_out", -1.0, None, "gives no sign"),
    ],
)
def test_a_clear_sign_is_compared_with_the_papers(
    name: str, slope: float, agrees: bool | None, words: str
) -> None:
    row = univariate_correlations(table(slope, 0.3, name), 200).iloc[0]
    assert words in row["note"]
    assert row["sign"] == slope
    assert row["agrees"] is pd.NA if agrees is None else row["agrees"] == agrees
    assert np.sign(row["spearman"]) == np.sign(slope)


def test_noise_has_no_sign() -> None:
    row = univariate_correlations(table(0.0, 1.0, "ppl"), 500).iloc[0]
    assert row["spearman_low"] < 0 < row["spearman_high"]
    assert row["agrees"] is pd.NA
    assert row["verdict"] == "holds_zero"
    assert row["sign"] is pd.NA
    assert "no clear sign" in row["note"]


def test_bins_that_do_not_differ_have_no_correlation() -> None:
    row = univariate_correlations(table(0.0, 0.0, "ppl"), 100).iloc[0]
    assert np.isnan(row["spearman"])
    assert row["verdict"] == "no_correlation"
    assert "do not differ" in row["note"]


def test_a_perfect_order_is_a_clear_sign() -> None:
    row = univariate_correlations(table(1.0, 0.0, "nat"), 100).iloc[0]
    assert row["spearman"] == pytest.approx(1)
    assert np.isnan(row["spearman_low"])
    assert row["agrees"] == True  # noqa: E712 (a pandas boolean)


def test_a_perfect_order_of_four_bins_may_be_chance() -> None:
    four = table(1.0, 0.0, "nat").head(4)
    row = univariate_correlations(four, 100).iloc[0]
    assert row["spearman"] == pytest.approx(1)
    assert row["agrees"] is pd.NA
    assert row["verdict"] == "no_interval"
    assert "4 bins give no interval" in row["note"]
