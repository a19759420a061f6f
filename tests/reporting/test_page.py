import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from im_assets.common.charts.panels import panels_chart
from im_assets.common.charts.points import Series, points_chart
from im_assets.common.formatting import shown
from im_assets.reporting.blocks import Figure, Section
from im_assets.reporting.gather import gather
from im_assets.reporting.page import render_page
from im_assets.reporting.report import FIGURES, NUMBERS, make_report, write_report
from im_resources.warehouse import Warehouse
from tests.reporting.page_parser import Page
from tests.reporting.tables import HOSTILE, fill, make_study, without_parts

VERSIONS = {"python": "3.11.9", "torch": "2.13.0"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report with every part, and with rows."""
    folder = tmp_path_factory.mktemp("report")
    study = make_study()
    found = gather(study, fill(folder / "w.duckdb", study), with_rows=True)
    return write_report(make_report(found, True, VERSIONS, "2026-11-21"), folder / "report").parent


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def numbers(written: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"not strict JSON: {constant}")

    return json.loads((written / NUMBERS).read_text(encoding="utf-8"), parse_constant=refuse)


def test_the_page_loads_nothing(page: Page, written: Path) -> None:
    loading = {"src", "srcset", "data", "action", "poster", "background", "xlink:href"}
    for element in page.elements:
        assert not loading & set(element.attributes), element
        href = element.attributes.get("href", "#")
        assert href.startswith("#"), element
    assert not {e.tag for e in page.elements} & {"link", "iframe", "object", "embed", "img", "base"}
    html = (written / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", html)
    assert len(html) < 1_500_000


def test_its_policy_allows_its_own_style_and_script_alone(page: Page) -> None:
    [policy] = [
        e.attributes["content"]
        for e in page.all("meta")
        if e.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        [element] = page.all(tag)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for element in page.elements:  # which that policy would refuse
        assert not [a for a in element.attributes if a == "style" or a.startswith("on")], element


def test_data_is_text_and_never_markup(page: Page) -> None:
    assert any(HOSTILE in p.text for p in page.all("p"))
    assert len(page.all("script")) == 1
    assert not [e for e in page.all("b") if "hello" in e.text]


def test_names_of_the_data_in_a_figure_are_text_and_never_markup() -> None:
    name = "</script><img src=x onerror=alert(1)>"
    points = Series(name, [1, 2], [1, 2], [name, name])
    chart = points_chart([points, Series("other", [1, 2], [2, 1])], "x", "y", name)
    section = Section("s", "S", (Figure("f", "F", name, "how", panels_chart([chart], 1)),))
    page = Page(render_page(make_study(), [section]))
    assert len(page.all("script")) == 1
    assert not page.all("img")
    # In each of the two widths a legend's entry and two titles of marks; and the panel's name.
    assert sum(e.text == name for tag in ("text", "title") for e in page.all(tag)) == 6
    assert name in [p.text for p in page.all("p")]


def test_headings_descend_one_level_at_a_time(page: Page) -> None:
    levels = [int(e.tag[1]) for e in page.elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids


def test_every_figure_says_how_to_read_it_and_what_it_shows(page: Page) -> None:
    figures = page.all("figure")
    assert len(figures) > 12
    for figure in figures:
        assert "How to read this" in figure.text
        charts = page.within(figure, "svg")
        assert charts
        for chart in charts:
            assert chart.attributes["aria-label"]
            assert chart.attributes["class"].split()[0] == "chart"


def test_every_figure_of_the_json_is_a_valid_vega_lite_specification(numbers: Any) -> None:
    import altair as alt

    figures = [f for s in numbers["sections"].values() for f in s.get("figures", {}).values()]
    assert len(figures) > 12
    for figure in figures:
        alt.Chart.from_dict(figure["chart"])
        assert all(figure["chart"]["datasets"].values())


def test_what_is_drawn_of_the_rule_is_what_the_table_says(numbers: Any) -> None:
    rule = numbers["sections"]["rule"]
    drawn = rule["figures"]["predicted_against_actual"]["chart"]["datasets"]
    rows = rule["tables"]["predictions"]["rows"]
    assert [p["x"] for p in drawn["predicted"]] == [r["actual"] for r in rows]
    assert [p["y"] for p in drawn["predicted"]] == [r["fitted"] for r in rows]
    assert [p["y"] for p in drawn["predicted_without_it"]] == [r["left_out"] for r in rows]


def test_every_number_of_a_table_is_in_the_json(page: Page, numbers: Any) -> None:
    held = {
        (key, column["key"]): [row[column["key"]] for row in table["rows"]]
        for section in numbers["sections"].values()
        for key, table in section.get("tables", {}).items()
        for column in table["columns"]
    }
    tables = page.all("table")
    assert len(tables) > 15
    for table in tables:
        name = table.attributes["id"].removeprefix("table-")
        cells = [e for e in page.elements if e.tag in ("th", "td") and e.parents[-2:] and
                 any(p is table for p in e.parents) and e.inside("tbody")]  # fmt: skip
        values = [c.attributes["data-value"] for c in cells if "data-value" in c.attributes]
        known = [str(v) for (key, _), vs in held.items() if key == name for v in vs
                 if v is not None]  # fmt: skip
        assert sorted(values) == sorted(known), name
    facts = [f for s in numbers["sections"].values() for f in s.get("facts", {}).values()]
    assert {f["label"] for f in facts} >= {
        e.text for e in page.all("dt") if not e.inside("li")
    }  # fmt: skip


def test_the_verdicts_on_the_page_are_those_of_the_json(page: Page, numbers: Any) -> None:
    table = page.by_id("table-verdicts")
    rows = numbers["sections"]["validation"]["tables"]["verdicts"]["rows"]
    assert {r["verdict"] for r in rows} == {"baseline", "better", "worse", "not distinguishable"}
    for row in rows:
        for value in (shown(row["loss"], "loss"), shown(row["difference"], "signed")):
            assert value in table.text
    assert numbers["sections"]["validation"]["figures"]["validation"]["chart"]["datasets"]


def test_a_null_result_is_stated_as_plainly_as_a_win(numbers: Any) -> None:
    texts = numbers["sections"]["validation"]["texts"]
    assert any("'rule' selects" in t and "not distinguishable from random" in t for t in texts)
    assert any("'reward' selects" in t and "better than random" in t for t in texts)
    answer = " ".join(numbers["sections"]["answer"]["texts"])
    assert "not distinguishable from random" in answer
    assert "demo-scale" in answer


def test_figures_are_files_that_stand_alone(written: Path) -> None:
    files = sorted((written / FIGURES).iterdir())
    assert {"validation.svg", "univariate_reward.svg", "judge.svg"} <= {f.name for f in files}
    for file in files:
        root = ElementTree.parse(file).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme: dark" in file.read_text(encoding="utf-8")


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        study = make_study()
        found = gather(study, fill(tmp_path / f"{name}.duckdb", study), with_rows=True)
        folder = write_report(make_report(found, True, VERSIONS), tmp_path / name).parent
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        contents.append({p.relative_to(folder): p.read_bytes() for p in files})
    assert contents[0] == contents[1]
    assert len(contents[0]) > 10


def test_parts_that_the_profile_leaves_out_say_which_setting_brings_them(tmp_path: Path) -> None:
    study = without_parts()
    found = gather(study, fill(tmp_path / "w.duckdb", study), with_rows=True)
    report = make_report(found, True, VERSIONS)
    for key, setting in (
        ("univariate", "univariate"),
        ("validation", "validation"),
        ("judge", "judge"),
        ("transfer", "transfer"),
        ("size", "selection.size: searched"),
    ):
        [text] = report.document()["sections"][key]["texts"]
        assert f"set {setting} in the profile" in text
        assert "make demo-full" in text
    answer = " ".join(report.document()["sections"]["answer"]["texts"])
    assert "not checked by finetuning" in answer


def test_an_empty_warehouse_gives_a_page_that_says_what_to_materialize(tmp_path: Path) -> None:
    found = gather(make_study(), Warehouse(tmp_path / "none.duckdb"), with_rows=True)
    path = write_report(make_report(found, True, VERSIONS), tmp_path / "report")
    page = Page(path.read_text(encoding="utf-8"))
    assert "materialize quality_rule" in page.by_id("rule").text
    assert "materialize selection_validation" in page.by_id("validation").text
    assert "No rule has been fitted yet" in page.by_id("answer").text


def test_a_verdict_says_what_was_measured_and_what_could_have_been_seen(
    page: Page, numbers: Any
) -> None:
    section = numbers["sections"]["validation"]
    for row in section["tables"]["verdicts"]["rows"]:
        if row["verdict"] == "baseline":
            continue
        [text] = [t for t in section["texts"] if f"that '{row['strategy']}' selects" in t]
        assert "selects from one of 3 parts of the pool" in text
        assert "interval for new subsets, finetunes and instructions is" in text
        assert f"A true difference of {row['detectable']:.4f} would" in text
        assert text in page.by_id("validation").text


def test_the_judge_s_sentence_follows_its_one_interval(numbers: Any) -> None:
    texts = numbers["sections"]["judge"]["texts"]
    [answer] = [t for t in texts if "Over 20 instructions and 2 pairs of finetunes" in t]
    assert "for new finetunes and instructions); no preference can be told" in answer


def test_the_rounds_say_what_fell_what_did_not_and_where_they_ended(numbers: Any) -> None:
    section = numbers["sections"]["rounds"]
    rows = section["tables"]["mining_rounds"]["rows"]
    assert [row["verdict"] for row in rows] == ["–", "cannot tell", "not made"]
    assert rows[1]["change"] == pytest.approx(rows[1]["rmse"] - rows[0]["rmse"])
    assert rows[2]["rmse"] is None
    [answer, *_] = section["texts"]
    assert "other sets could have given without any true change" in answer
    assert "Round 3 was not made: the rule's error on the sets of round 2" in answer
    drawn = section["figures"]["mining_rounds"]["chart"]["datasets"]["rows"]
    assert [row["value"] for row in drawn] == [
        rows[0]["rmse"], rows[0]["rule_rmse"], rows[1]["rmse"], rows[1]["rule_rmse"]
    ]  # fmt: skip


def test_without_rounds_there_is_no_section_of_them(tmp_path: Path) -> None:
    study = without_parts()
    found = gather(study, fill(tmp_path / "w.duckdb", study), with_rows=False)
    keys = [section.key for section in make_report(found, False, VERSIONS).sections]
    assert "rounds" not in keys
    asked = study.model_copy(update={"mining": make_study().mining})
    found = gather(asked, fill(tmp_path / "other.duckdb", study), with_rows=False)
    report = make_report(found, False, VERSIONS).document()["sections"]
    assert "materialize mining_rounds" in " ".join(report["rounds"]["texts"])
