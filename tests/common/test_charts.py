import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import im_assets.reporting.page as page
from im_assets.common.charts.densities import densities_chart
from im_assets.common.charts.drawing import MAX_BYTES, png, png_markdown, svg
from im_assets.common.charts.look import Chart, extent
from im_assets.common.charts.panels import panels, panels_chart
from im_assets.common.charts.points import Reference, Series, points_chart
from im_assets.common.charts.regression import regression_line
from im_assets.common.charts.rows import Band, Row, rows_chart

HOSTILE = "</script><img src=x onerror='alert(1)'>\"&\\'"
values = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 6))
WIDTHS = st.sampled_from([328.0, 680.0])


def texts_of(drawn: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(drawn).iter("text")]


def marks(drawn: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(drawn).iter() if e.get("class") == "mark"]


def hostile_charts() -> list[Chart]:
    some = Series(HOSTILE, [1, 2], [1, 2], [HOSTILE, HOSTILE])
    other = Series("other", [1, 2], [2, 3], line="solid")
    points = points_chart([some, other], HOSTILE, HOSTILE, HOSTILE, [Reference(1.5, HOSTILE)])
    row = Row(HOSTILE, 1.0, 0.5, 1.5, HOSTILE, points=[0.9])
    rows = rows_chart([row, Row("none", None)], HOSTILE, HOSTILE, band=Band(0.6, 1.2, HOSTILE))
    bars = rows_chart([row], HOSTILE, HOSTILE, "bar")
    return [points, rows, bars, densities_chart({HOSTILE: [1, 2, 3], "b": [2, 3]}, HOSTILE)]


@settings(max_examples=15)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=8), WIDTHS)
def test_every_point_lies_inside_the_picture(points: list[tuple[float, float]], w: float) -> None:
    x, y = zip(*points, strict=True)
    drawn = svg(points_chart([Series("", x, y, ["p"] * len(x))], "x", "y"), w, "alt")
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width == w
    assert len(marks(drawn)) == len(points)
    assert "NaN" not in drawn
    # A mark is placed within the plot, which is placed within the picture.
    [origin] = [e.get("transform", "") for e in root.findall("g")]
    left, top = map(float, re.findall(r"[-\d.]+", origin))
    for mark in marks(drawn):
        across, down = map(float, re.findall(r"[-\d.]+", mark.attrib["transform"]))
        assert 0 <= left + across <= width
        assert 0 <= top + down <= height


def test_a_chart_holds_every_number_and_text_that_it_draws() -> None:
    fit = Series("fit", (0.0, 1.0), (1.0, 2.0), points=False, line="solid",
                 low=(0.5, 1.5), high=(1.5, 2.5))  # fmt: skip
    chart = points_chart([Series("my points", (0, np.float64(1)), (1, 2), ("a", "b")), fit],
                         "x", "y", references=[Reference(1.25, "r")])  # fmt: skip
    assert chart["datasets"] == {
        "my_points": [{"series": "my points", "x": 0, "y": 1, "text": "a"},
                      {"series": "my points", "x": 1, "y": 2, "text": "b"}],
        "reference": [{"value": 1.25, "label": "r"}],
        "fit": [{"series": "fit", "x": 0.0, "y": 1.0, "low": 0.5, "high": 1.5},
                {"series": "fit", "x": 1.0, "y": 2.0, "low": 1.5, "high": 2.5}],
    }  # fmt: skip
    json.dumps(chart, allow_nan=False)
    rows = rows_chart([Row("a", 1.0, None, 2.0, points=(0.5,)), Row("b", float("nan"))], "x")
    assert [r["value"] for r in rows["datasets"]["rows"]] == [1.0, None]
    assert rows["datasets"]["points"] == [{"name": "a", "value": 0.5, "look": 0}]


def test_a_specification_is_valid_vega_lite() -> None:
    import altair as alt

    charts = hostile_charts()
    for chart in charts:
        alt.LayerChart.from_dict(chart)
    alt.ConcatChart.from_dict(panels_chart(charts, 2))


@pytest.mark.parametrize("place", range(4))
def test_texts_of_the_data_are_text_and_never_markup(place: int) -> None:
    for style in ("", "text { fill: red; }"):
        drawn = svg(hostile_charts()[place], 328, HOSTILE, style)
        root = ElementTree.fromstring(drawn)  # which markup inside would break
        tags = {e.tag.rpartition("}")[2] for e in root.iter()}
        assert tags <= {"svg", "g", "path", "line", "rect", "text", "title", "style"}
        assert not [e for e in root.iter() if {"href", "style", "onload"} & set(e.attrib)]
        assert "<img" not in drawn
        assert "</script" not in drawn
        assert HOSTILE in [e.text for e in root.iter()]


def test_each_mark_says_its_values() -> None:
    chart = points_chart([Series("", [1, 2], [3, 4], ["one: 3", "two: 4"])], "x", "y")
    titles = [m.findtext("title") for m in marks(svg(chart, 328, "alt"))]
    assert titles == ["one: 3", "two: 4"]
    for kind in ("dot", "bar"):
        rows = rows_chart([Row("a", 1.0, text="a is 1"), Row("b", 2.0)], "x", kind=kind)
        titles = [m.findtext("title") for m in marks(svg(rows, 328, "alt"))]
        assert titles == ["a is 1", "b"]


def test_a_legend_names_each_series_once_and_is_left_out_for_a_single_one() -> None:
    one, two = Series("one", [1, 2], [3, 4]), Series("two", [1, 2], [4, 3], look=1)
    line = Series("two", [1, 2], [4, 3], points=False, line="solid", look=1)
    drawn = svg(points_chart([one, two, line], "x", "y"), 328, "alt")
    assert [t for t in texts_of(drawn) if t in ("one", "two")] == ["one", "two"]
    keys = [e for e in ElementTree.fromstring(drawn).iter() if e.get("class") == "key"]
    assert [k.get("data-series") for k in keys] == ["0", "1"]
    series = [e.get("data-series") for e in ElementTree.fromstring(drawn).iter()
              if "data-series" in e.attrib and e.get("class") != "key"]  # fmt: skip
    assert set(series) == {"0", "1"}
    assert "one" not in texts_of(svg(points_chart([one], "x", "y"), 328, "alt"))


def test_a_value_beyond_the_axis_is_named_at_its_edge() -> None:
    points = Series("", [0, 1], [1, 2])
    chart = points_chart([points], "x", "y", references=[Reference(9.0, "base model")])
    assert "\u2191 base model, beyond the axis" in texts_of(svg(chart, 328, "alt"))
    inside = points_chart([points], "x", "y", references=[Reference(9.0, "base")], y_ends=[9.0])
    assert "base" in texts_of(svg(inside, 328, "alt"))


def test_counts_have_whole_ticks() -> None:
    chart = points_chart([Series("", [1, 2, 3], [0.5, 0.6, 0.7])], "n", "y", x_scale="whole")
    assert {"1", "2", "3"} <= set(texts_of(svg(chart, 680, "alt")))
    assert not {"1.5", "2.5"} & set(texts_of(svg(chart, 680, "alt")))


def test_a_logarithmic_axis_shows_each_doubling_as_far_apart() -> None:
    chart = points_chart([Series("", [10, 20, 40], [1, 1, 1], "abc")], "n", "y", x_scale="log")
    places = [float(re.findall(r"[-\d.]+", m.attrib["transform"])[0])
              for m in marks(svg(chart, 680, "alt"))]  # fmt: skip
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)


def test_equal_values_still_have_an_axis() -> None:
    low, high = extent([2.0, 2.0])
    assert low < 2.0 < high
    assert extent([])[0] < extent([])[1]
    drawn = svg(rows_chart([Row("only", 2.0), Row("none", None)], "loss"), 328, "alt")
    assert "not defined" in texts_of(drawn)


def test_long_names_stand_above_their_rows() -> None:
    def anchor(name: str) -> list[str]:
        root = ElementTree.fromstring(svg(rows_chart([Row(name, 1.0)], "x"), 328, "alt"))
        return [e.attrib["text-anchor"] for e in root.iter("text") if e.text == name]

    assert anchor("a strategy with a name that is very long") == ["start"]
    assert anchor("rule") == ["end"]


def test_text_is_at_least_12_px_and_every_colour_has_a_dark_one() -> None:
    style = page._read("chart.css")
    assert ".chart text { font: 12px " in style
    root = ElementTree.fromstring(svg(hostile_charts()[0], 328, "alt"))
    for element in root.iter():
        for channel in ("fill", "stroke"):
            colour = element.get(channel, "none")
            assert colour == "none" or f'.chart [{channel}="{colour}"]' in style
    sizes = [e.attrib["font-size"] for e in root.iter("text")]
    assert all(float(s.removesuffix("px")) >= 12 for s in sizes)


def test_panels_are_charts_of_their_own() -> None:
    one = points_chart([Series("a", [1, 2], [1, 2], "xy")], "x", "y", "first")
    two = points_chart([Series("a", [3, 4], [3, 4], "zw")], "x", "y", "second")
    together = panels_chart([one, two], 2)
    assert set(together["datasets"]) == {"first_a", "second_a"}
    parts = panels(together)
    assert [p["title"] for p in parts] == ["first", "second"]
    for part, alone in zip(parts, (one, two), strict=True):
        assert list(part["datasets"].values()) == list(alone["datasets"].values())
        assert svg(part, 328, "alt") == svg(alone, 328, "alt")
    assert panels(one) == [one]


def big(points: int) -> Any:
    rng = np.random.Generator(np.random.PCG64(1))
    return points_chart(
        [Series("", rng.normal(size=points).tolist(), rng.normal(size=points).tolist())], "x", "y"
    )


def test_a_png_is_wide_and_small() -> None:
    pixels = png(big(30))
    assert len(pixels) <= MAX_BYTES
    assert Image.open(io.BytesIO(pixels)).width == 900
    wide = png(panels_chart([big(10)] * 4, 3, "four"))
    assert Image.open(io.BytesIO(wide)).width == 900
    many = png(big(2500))
    assert len(many) <= MAX_BYTES
    assert Image.open(io.BytesIO(many)).width >= 450


def test_metadata_shows_the_chart_without_a_file() -> None:
    text = str(png_markdown(big(5), "five points").value)
    assert text.startswith("![five points](data:image/png;base64,iVBOR")


def test_equal_charts_are_drawn_alike_in_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    charts = [points_chart([Series("", [1, n + 2], [1, 2], "ab")], "x", "y") for n in range(6)]
    alone = [svg(chart, 328, "alt") for chart in charts]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda chart: svg(chart, 328, "alt"), charts)) == alone


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


def test_a_style_makes_a_document_that_stands_alone(tmp_path: Path) -> None:
    drawn = svg(big(3), 680, "alt text", "text { fill: red; }")
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["aria-label"] == "alt text"
    assert float(root.attrib["width"]) == 680
