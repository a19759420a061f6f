"""A preview shows rows as they are, whatever is in them."""

import string

import pandas as pd

from im_assets.common.presentation import markdown, preview

IMAGE = "![x](http://127.0.0.1:3000/graphql?query=mutation{wipe})"


def cells(line: str) -> list[str]:
    """The cells of a table's row as CommonMark reads them: what is escaped stands for itself."""
    found, cell, signs = [], "", iter(line.strip("| "))
    for sign in signs:
        if sign == "|":
            found.append(cell.strip())
            cell = ""
        elif sign == "\\":
            cell += next(signs)
        else:
            assert sign not in string.punctuation, f"{sign!r} is not escaped in {line!r}"
            cell += sign
    return [*found, cell.strip()]


def test_a_hostile_row_is_text_in_its_own_cells() -> None:
    hostile = [
        IMAGE,
        "<img src=x onerror=alert(1)>",
        "a | b",
        "`code`",
        "[go](javascript:alert(1))",
    ]
    frame = pd.DataFrame({"*in*": hostile, "out": ["\x1b[2J\u202eabc"] * 5})
    head, ruler, *rows = preview(frame).value.splitlines()
    assert cells(head) == ["*in*", "out"]
    assert ruler == "|---|---|"
    assert [cells(row) for row in rows] == [[h, r"\x1b[2J\u202eabc"] for h in hostile]


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    (row,) = preview(pd.DataFrame({"x": ["](" * 500]}), width=20).value.splitlines()[2:]
    assert cells(row) == ["](" * 9 + "]…"]


def test_numbers_stay_readable() -> None:
    (row,) = preview(pd.DataFrame({"x": [1.23456], "n": [3]})).value.splitlines()[2:]
    assert cells(row) == ["1.235", "3"]


def test_words_stay_words() -> None:
    assert markdown("zwei Wörter") == "zwei Wörter"
