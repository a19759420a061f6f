import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.reporting.charts import Line, Point, Series, XYChart
from im_assets.reporting.numbers import between, plain, shown
from im_assets.reporting.regression import regression_line
from im_assets.reporting.row_chart import Row, RowChart
from im_assets.reporting.sections.examples import cut
from im_assets.reporting.svg import extent, tick_texts, ticks

values = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 6))
WIDTHS = st.sampled_from([328.0, 680.0])


def coordinates(svg: str) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(svg)
    found = [(e.get("cx"), e.get("cy")) for e in root.iter("circle")]
    return [(float(x or "nan"), float(y or "nan")) for x, y in found]


@given(st.lists(st.tuples(values, values), min_size=1, max_size=8), WIDTHS)
def test_every_point_lies_inside_the_picture(points: list[tuple[float, float]], w: float) -> None:
    series = Series("", tuple(Point(x, y, "p") for x, y in points))
    svg = XYChart("x", "y", (series,)).svg(w, "alt")
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    drawn = coordinates(svg)
    assert len(drawn) == len(points)
    assert all(0 <= x <= width and 0 <= y <= height for x, y in drawn)
    assert "nan" not in svg


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5), st.booleans())
def test_ticks_are_round_few_and_inside(low: float, span: float, whole: bool) -> None:
    high = low + span
    found = ticks(low, high, whole=whole)
    assert len(found) <= 6
    assert all(low - span * 1e-6 <= t <= high + span * 1e-6 for t in found)
    assert len(set(tick_texts(found))) == len(found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[0] if len(steps) else 0)
    if whole:
        assert all(float(t).is_integer() for t in found)
    elif len(found) > 1:
        mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
        assert any(math.isclose(mantissa, m, rel_tol=1e-6) for m in (1, 2, 2.5, 5, 10))


def test_equal_values_still_have_an_axis() -> None:
    low, high = extent([2.0, 2.0])
    assert low < 2.0 < high
    assert extent([])[0] < extent([])[1]
    svg = RowChart("loss", (Row("only", 2.0), Row("none", None))).svg(328, "alt")
    assert "not defined" in svg


def test_names_are_escaped_in_a_chart() -> None:
    svg = RowChart("<i>", (Row("<script>", 1.0, 0.5, 1.5, text='"><script>'),)).svg(328, "<a>")
    root = ElementTree.fromstring(svg)  # which markup inside would break
    assert not [e for e in root.iter() if e.tag not in
                {"svg", "line", "text", "circle", "title", "g", "rect"}]  # fmt: skip
    assert "&lt;script&gt;" in svg


def test_a_value_beyond_the_axis_is_named_at_its_edge() -> None:
    chart = XYChart("x", "y", (Series("", (Point(0, 1, ""), Point(1, 2, ""))),),
                    references=((9.0, "base model"),))  # fmt: skip
    assert "\u2191 base model, beyond the axis" in chart.svg(328, "alt")


def test_long_names_stand_above_their_rows() -> None:
    name = "a strategy with a name that is very long"
    texts = re.findall(r'text-anchor="(\w+)"[^>]*>' + name, RowChart("x", (Row(name, 1.0),)).svg(
        328, "alt"))  # fmt: skip
    assert texts == ["start"]


def test_the_regression_line_is_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.Generator(np.random.PCG64(5))
    x = rng.normal(size=12)
    y = 1 + 2 * x + rng.normal(size=12)
    [line] = regression_line("", x, y)
    fitted = sm.OLS(y, sm.add_constant(x)).fit()
    at = sm.add_constant(np.asarray(line.x))
    frame = fitted.get_prediction(at).summary_frame(alpha=0.05)
    np.testing.assert_allclose(line.y, frame["mean"])
    np.testing.assert_allclose(line.low, frame["mean_ci_lower"])
    np.testing.assert_allclose(line.high, frame["mean_ci_upper"])
    assert regression_line("", x[:2], y[:2]) == ()
    assert regression_line("", np.ones(5), y[:5]) == ()


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "loss", "–"),
        (float("nan"), "loss", "–"),
        (2.34567, "loss", "2.3457"),
        (-0.012, "signed", "\u22120.0120"),
        (0.012, "signed", "+0.0120"),
        (-0.001, "two", "0.00"),
        (0.0004, "p", "<0.001"),
        (0.25, "percent", "25.0\u00a0%"),
        (12345, "int", "12,345"),
        (1.5e-7, "number", "1.50e\u221207"),
        (True, "text", "yes"),
    ],
)
def test_numbers_as_text(value: object, kind: str, text: str) -> None:
    assert shown(value, kind) == text  # type: ignore[arg-type]


def test_missing_numbers_are_null_and_dashes() -> None:
    assert plain(np.float64("inf")) is None
    assert plain(np.int64(3)) == 3
    assert between(1.0, None) == "–"


@given(st.text())
def test_an_excerpt_is_one_short_printable_line(text: str) -> None:
    found = cut(text)
    assert len(found) <= 300
    assert found.isprintable()


def test_a_chart_gives_all_it_draws_as_data() -> None:
    line = Line("fit", (0.0, 1.0), (1.0, 2.0), (0.5, 1.5), (1.5, 2.5))
    data = XYChart("x", "y", (Series("s", (Point(0, 1, "a"),)),), (line,), ((1.0, "r"),)).data()
    assert data["series"] == [{"name": "s", "x": [0], "y": [1], "labels": ["a"]}]
    assert data["lines"][0]["low"] == [0.5, 1.5]
    assert data["references"] == [{"label": "r", "value": 1.0}]
