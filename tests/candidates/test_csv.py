"""CSV: what a stray quote costs, and that no row is ever made of a piece of another."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from im_assets.candidates.csv_records import csv_rows
from im_assets.candidates.files import Fault, SourceError, read_records
from im_assets.candidates.reading import read_source
from im_resources.study import DataSource

HEADER = "instruction,output\n"


def read(folder: Path, text: str, **settings: object) -> tuple[dict[int, str], dict[int, str]]:
    """(output by line kept, reason by line rejected)"""
    path = folder / "rows.csv"
    path.write_bytes(text.encode())
    source = DataSource.model_validate({"path": str(path), **settings})
    rows, rejected = read_source("mine", source)
    kept = dict(zip(rows["line"], rows["output"], strict=True))
    return kept, dict(zip(rejected["line"], rejected["reason"], strict=True))


def test_one_stray_quote_costs_one_row_of_forty_thousand(tmp_path: Path) -> None:
    rows = "".join(f"question {i},answer\n" for i in range(40_000))
    kept, rejected = read(tmp_path, f'{HEADER}q,"stray\n{rows}')
    assert list(kept) == list(range(3, 40_003))
    assert list(rejected) == [2]
    assert "a quote is not closed where a field ends" in rejected[2]


def test_rows_between_two_stray_quotes_are_read(tmp_path: Path) -> None:
    some = "c,d\n" * 150
    kept, rejected = read(tmp_path, f'{HEADER}q,"stray\n{some}r,"stray\n"e","f"\n"g","h"\n')
    assert len(kept) == 151
    assert list(rejected) == [2, 153, 154]  # the third quote may end the second's field


def test_quoted_rows_show_where_rows_go_on(tmp_path: Path) -> None:
    text = HEADER + 'a,b\nq,"stray\nc,d\n"e","f, g"\nh,"i, j"\nk,l\n'
    kept, rejected = read(tmp_path, text)
    assert kept == {2: "b", 6: "i, j", 7: "l"}
    assert list(rejected) == [3, 4, 5]


@pytest.mark.parametrize(
    "broken",
    [
        'q,"an answer with a "quoted" word\nyes, no\nend"\n',  # inner quotes not doubled
        'q,"first\nyes, no\nlast\n',  # not closed
        'q,"Use this:\n"a","b"\nend"\n',  # text that is CSV itself
    ],
)
def test_a_piece_of_a_broken_answer_is_no_row(tmp_path: Path, broken: str) -> None:
    good = 'r,"good, one"\ns,"another, one"\ns,"a third"\nt,u\n'
    kept, rejected = read(tmp_path, HEADER + broken + good)
    lines = broken.count("\n")
    assert set(range(2, 2 + lines)) <= set(rejected)
    assert list(kept.values())[-3:] == ["another, one", "a third", "u"]
    assert set(kept.values()) <= {"good, one", "another, one", "a third", "u"}
    assert "may belong to the row of line 2" in rejected[3]


def test_a_file_cut_off_inside_of_an_answer_has_no_rows_there(tmp_path: Path) -> None:
    kept, rejected = read(tmp_path, HEADER + 'a,b\nq,"first\nyes, no\nmay, b')
    assert kept == {2: "b"}
    assert sorted(rejected) == [3, 4, 5]


def test_where_rows_have_several_lines_doubtful_ones_are_not_taken(tmp_path: Path) -> None:
    good = '"a","b\nc"\n'
    text = HEADER + good + 'q,"stray\nyes, no\n' + good + good
    kept, rejected = read(tmp_path, text)
    assert kept == {2: "b\nc", 8: "b\nc"}
    assert sorted(rejected) == [4, 5, 6]  # the second quote of line 6 may end a field, too


def test_a_line_too_long_inside_of_a_field_is_never_left_out_of_it(tmp_path: Path) -> None:
    text = HEADER + 'a,b\nq,"start\n' + "x" * 400 + '\nend"\n"c","d"\n"e","f"\n'
    kept, rejected = read(tmp_path, text, max_line_mb=0.0002)
    assert kept == {2: "b", 6: "d", 7: "f"}
    assert sorted(rejected) == [3, 4, 5]
    assert "max_line_mb" in rejected[4]


def test_a_row_of_many_lines_is_no_longer_than_a_line_may_be(tmp_path: Path) -> None:
    text = HEADER + 'q,"' + "a line\n" * 100 + '"\na,b\n'
    _, rejected = read(tmp_path, text, max_line_mb=0.0002)
    assert "longer than 0.0002 MB" in rejected[2]


def test_quotes_without_end_everywhere_end_the_reading(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="too many quotes that are not closed"):
        read(tmp_path, HEADER + 'a","""\n' * 60_000)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("instruction,output,output\n", "the column 'output' twice"),
        ("instruction,output\ra,b\r", "the header on line 1 cannot be parsed"),
        ('instruction,"output\n', "the header on line 1 cannot be parsed"),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path, header + "a,b\n")


words = st.text("ab ,\n", min_size=1).map(str.strip).filter(bool)
tables = st.lists(st.tuples(words, words), min_size=1, max_size=8)


@given(tables, st.data())
def test_a_quote_put_anywhere_makes_no_row_of_a_piece_of_another(
    table: list[tuple[str, str]], data: st.DataObject
) -> None:
    lines, text = [2], ""  # the line that each row begins on
    for row in table:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(row)
        text += buffer.getvalue()
        lines.append(text.count("\n") + 2)
    at = data.draw(st.integers(0, len(text) - 1))
    content = (HEADER + text[:at] + '"' + text[at:]).encode()
    changed = text[:at].count("\n") + 2
    own = range(max(line for line in lines if line <= changed), changed + 1)
    texts = {field.replace('"', "") for row in table for field in row}
    rows = dict(csv_rows(io.BytesIO(content), 10))
    assume(isinstance(rows[own[0]], Fault))  # else it is a good row by itself
    for row in rows.values():
        if not isinstance(row, Fault):
            assert {field.replace('"', "") for field in row.values()} <= texts


def test_read_records_gives_the_first_line_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a\n"one\ntwo"\n\nthree\n')
    assert list(read_records(path)) == [(2, {"a": "one\ntwo"}), (5, {"a": "three"})]
