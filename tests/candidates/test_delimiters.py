"""CSV of every kind: what separates the fields is told from the content, or said in the profile."""

import csv
import io
from pathlib import Path

import pytest
from pydantic import ValidationError

from im_assets.candidates.files import SourceError
from im_assets.candidates.reading import read_source
from im_resources.study import DataSource

# As a German spreadsheet writes it: semicolons, decimal commas, a line break in a quoted field.
GERMAN = (
    "frage;antwort;note\r\n"
    '"Wie groß ist π?";"Etwa 3,14; genauer:\n3,14159";0,87\r\n'
    "Wie alt ist die Erde?;4,5 Milliarden Jahre, etwa;1,0\r\n"
    "Wo liegt Köln?;Am Rhein;12\r\n"
)
MAPPED = {"format": "fields", "fields": {"instruction": "frage", "output": "antwort"}}


def source(path: Path, **settings: object) -> DataSource:
    return DataSource.model_validate({"path": str(path), **settings})


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_semicolons_decimal_commas_and_line_breaks(tmp_path: Path) -> None:
    german = source(write(tmp_path / "a.csv", GERMAN), **MAPPED, decimal=",")
    rows, rejected = read_source("mine", german, {"note": "number"})
    assert rejected.empty
    assert rows["output"].tolist()[0] == "Etwa 3,14; genauer:\n3,14159"
    assert rows["output"].tolist()[1] == "4,5 Milliarden Jahre, etwa"
    assert rows["note"].tolist() == [0.87, 1.0, 12.0]
    assert rows["line"].tolist() == [2, 4, 5]


def test_a_decimal_comma_is_never_read_as_something_else(tmp_path: Path) -> None:
    german = source(write(tmp_path / "a.csv", GERMAN), **MAPPED)
    rows, rejected = read_source("mine", german, {"note": "number"})
    assert rows["note"].tolist() == [12.0]
    assert (
        "no finite number: '0,87' (numbers are read with '.'; see `decimal`"
        in rejected["reason"].iloc[0]
    )
    points = write(tmp_path / "b.csv", GERMAN.replace("12\r", "1.200\r"))
    _, rejected = read_source("mine", source(points, **MAPPED, decimal=","), {"note": "number"})
    assert "numbers are read with ','" in rejected["reason"].iloc[0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_separates_the_fields_is_seen(tmp_path: Path, delimiter: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["instruction", "output, if any; else -", "output"])
    writer.writerows([[f"a, b; c | d\t{i}", 'say "no"', "x;y\nz|1,2"] for i in range(30)])
    rows, rejected = read_source("mine", source(write(tmp_path / "a.csv", text.getvalue())))
    assert rejected.empty
    assert rows["instruction"].tolist() == [f"a, b; c | d\t{i}" for i in range(30)]
    assert set(rows["output"]) == {"x;y\nz|1,2"}


def test_a_name_with_tsv_says_tabs(tmp_path: Path) -> None:
    text = "instruction\toutput\nOne, two; three?\tFour\n"
    rows, _ = read_source("mine", source(write(tmp_path / "a.tsv", text)))
    assert rows["instruction"].tolist() == ["One, two; three?"]
    commas = write(tmp_path / "b.tsv", "instruction,output\na,b\n")
    with pytest.raises(SourceError, match=r"b\.tsv: .*separated by commas; give the right `delim"):
        read_source("mine", source(commas))
    assert len(read_source("mine", source(commas, delimiter=","))[0]) == 1


def test_a_setting_says_what_the_content_cannot(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "instruction|output, short\na|b, c\n")
    mapped = {
        "format": "fields",
        "fields": {"instruction": "instruction", "output": "output, short"},
    }
    with pytest.raises(SourceError, match="has the field 'instruction'"):
        read_source("mine", source(path, **mapped))  # as many commas as bars: commas
    rows, _ = read_source("mine", source(path, **mapped, delimiter="|"))
    assert rows["output"].tolist() == ["b, c"]


@pytest.mark.parametrize("wrong", ["", "\\t", ";;", "a", '"', "\n"])
def test_a_delimiter_is_one_character(wrong: str) -> None:
    with pytest.raises(ValidationError, match="one character between two fields"):
        DataSource(path="a.csv", delimiter=wrong)


def test_a_stray_quote_costs_one_row_whatever_the_delimiter(tmp_path: Path) -> None:
    rows = "".join(f'"question; {i}";"answer"\n' for i in range(200))
    path = write(tmp_path / "a.csv", f'instruction;output\nq;"stray\n{rows}')
    kept, rejected = read_source("mine", source(path))
    assert rejected["line"].tolist()[0] == 2
    assert "a quote is not closed" in rejected["reason"].iloc[0]
    assert kept["instruction"].tolist()[-1] == "question; 199"
    assert len(kept) + len(rejected) == 201
    assert len(kept) >= 198
