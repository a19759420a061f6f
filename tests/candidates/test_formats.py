"""Formats by name: unknown ones, ones that fail, and columns that are kept beside the fields."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from im_assets.candidates.cleaning import clean
from im_assets.candidates.format_registry import FORMATS, FormatError, check_formats, data_format
from im_assets.candidates.reading import SourceError, read_source
from im_assets.candidates.rows import text
from im_resources.study import CleaningSettings, DataSettings, DataSource
from tests.candidates.files_for_tests import write_rows
from tests.registries import isolate

TICKETS = [{"title": "Help!", "answer": "Here."}, {"title": "More?", "answer": "No."}]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(FORMATS, monkeypatch)


def read(
    folder: Path, rows: list[dict[str, Any]], format_: str, **settings: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    extra = settings.pop("extra", None)
    path = str(write_rows(folder, "jsonl", rows))
    source = DataSource.model_validate({"path": path, "format": format_, **settings})
    return read_source("mine", source, extra)


@pytest.mark.parametrize("place", ["candidates.a", "unseen.dolly", "evaluation"])
def test_an_unknown_format_is_named_with_its_place_and_the_nearest(place: str) -> None:
    good, wrong = {"path": "x.jsonl"}, {"path": "x.jsonl", "format": "mesages"}
    content = {"candidates": {"a": good}, "unseen": {"dolly": good}, "evaluation": good}
    check_formats(DataSettings.model_validate(content))
    if place == "evaluation":
        content["evaluation"] = wrong
    else:
        block, name = place.split(".")
        content[block] = {name: wrong}
    message = rf"data\.{place}\.format: unknown data format 'mesages'; did you mean 'messages'"
    with pytest.raises(FormatError, match=message):
        check_formats(DataSettings.model_validate(content))


def test_a_format_may_leave_the_output_to_a_column_of_outputs(tmp_path: Path) -> None:
    @data_format("titles", columns={"instruction": "title", "output": "answer"})
    def titles(row: dict[str, Any], needs_output: bool) -> dict[str, str]:
        output = {"output": text(row, "answer")} if needs_output else {}
        return {"instruction": text(row, "title")} | output

    rows, _ = read(tmp_path, TICKETS, "titles")
    assert rows["output"].tolist() == ["Here.", "No."]
    lists = [{"title": "Help!", "references": ["Here.", "There."]}]
    rows, _ = read(tmp_path, lists, "titles", outputs="references")
    assert rows["outputs"].tolist() == [["Here.", "There."]]
    with pytest.raises(SourceError, match=r"no row .* 'answer', which `format: titles` reads"):
        read(tmp_path, lists, "titles")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "a", "output": "b"}, r"line 1 .*'odd' gave .*expected a dict with instruction"),
        (["a", "b"], r"line 1 .*'odd' gave \['a', 'b'\]; expected a dict"),
        (KeyError("titel"), r"'mine': line 1 .*'odd' failed with KeyError: 'titel'.*RowError"),
    ],
)
def test_a_format_that_is_wrong_stops_and_is_named(
    tmp_path: Path, fields: Any, message: str
) -> None:
    @data_format("odd", columns={})
    def odd(row: dict[str, Any]) -> Any:
        if isinstance(fields, Exception):
            raise fields
        return fields

    with pytest.raises(SourceError, match=message):
        read(tmp_path, TICKETS, "odd")


def test_a_field_that_is_no_text_is_a_bad_row(tmp_path: Path) -> None:
    @data_format("numbers", columns={})
    def numbers(row: dict[str, Any]) -> Any:
        return {"instruction": row["title"], "output": 7 if row["title"] == "Help!" else "No."}

    rows, rejected = read(tmp_path, TICKETS, "numbers")
    assert rows["line"].tolist() == [2]
    assert rejected["reason"].tolist() == ["field 'output' is not text but int"]


ALPACA = [{"instruction": f"What is {i}?", "output": f"Number {i}."} for i in range(4)]
EXTRA = {"quality": "number", "id": "text"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_further_columns_come_through_reading_and_cleaning(tmp_path: Path, kind: str) -> None:
    given = [0.5, 2, -1.5, None]
    rows: list[dict[str, Any]] = [
        {**row, "quality": given[i], "id": f"n{i}"} for i, row in enumerate(ALPACA)
    ]
    rows.append(rows[0] | {"quality": 9.0, "id": "twin"})
    source = DataSource(path=str(write_rows(tmp_path, kind, rows)))
    read_rows, rejected = read_source("mine", source, EXTRA)
    kept, _ = clean(read_rows, rejected, CleaningSettings(), None)
    assert kept["id"].tolist() == ["n0", "n1", "n2", "n3"]  # of two alike, the first stays
    np.testing.assert_array_equal(kept["quality"], [0.5, 2, -1.5, np.nan])
    assert kept["quality"].dtype == np.float64


@pytest.mark.parametrize("value", ["good", True, [1], float("inf")])
def test_what_is_no_number_is_a_bad_row(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "rows.jsonl"
    good, bad = (row | {"quality": q} for row, q in zip(ALPACA, (1, value), strict=False))
    path.write_text(json.dumps(good) + "\n" + json.dumps(bad))
    rows, rejected = read_source("mine", DataSource(path=str(path)), {"quality": "number"})
    assert rows["quality"].tolist() == [1]
    assert "field 'quality' is no finite number" in rejected["reason"][0]


def test_a_source_without_the_column_is_named(tmp_path: Path) -> None:
    rows = [row | {"qualty": 1} for row in ALPACA]
    message = r"no row .* 'quality', which an indicator .* did you mean 'qualty'"
    with pytest.raises(SourceError, match=message):
        read(tmp_path, rows, "alpaca", extra={"quality": "number"})
