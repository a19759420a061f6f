"""Exact and pattern match, by hand and whatever the case, blanks and punctuation."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.common.patterns import PatternError
from im_assets.experiments.measures import MeasureError
from im_assets.experiments.measures.matching import exact_match, normalized, pattern_match

WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1)


def _rows(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"answer": "", "pattern": "", **columns})


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Paris", "paris"),
        ("  The  Nile.\n", "the nile"),
        ('"Yes!"', "yes"),
        ("**42**", "42"),
        ("$7.50.", "7.50"),
        ("2 + 2 = 4, so\n#### 4", "4"),
        ("The answer is Rome.", "Rome"),
        ("First I thought the answer is 3. No: the answer is 5", "5"),
        ("Answer: blue\nBecause the sky is.", "blue"),
        ("12 eggs.\n#### 12", "So many eggs.\n#### 12"),
        ("\uff14\uff12", "42"),
    ],
)
def test_the_same_answer(response: str, answer: str) -> None:
    assert exact_match(_rows(response=[response], answer=[answer])) == 1


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Paris, France", "Paris"),
        ("-4", "4"),
        ("1000", "1,000"),
        ("the Nile", "Nile"),
        ("", "no"),
        ("?", "!"),
        ("The answer is 4\nor 5", "5"),
    ],
)
def test_another_answer(response: str, answer: str) -> None:
    assert exact_match(_rows(response=[response], answer=[answer])) == 0


def test_rows_without_an_answer_do_not_count() -> None:
    rows = _rows(response=["a", "b", "c", "d"], answer=["a", "x", "", "d"])
    assert exact_match(rows) == pytest.approx(2 / 3)


@given(WORDS, st.text(alphabet=" \t\n"), st.sampled_from(["", ".", "!", "?", ";"]))
def test_blanks_case_and_final_punctuation_do_not_matter(text: str, blanks: str, end: str) -> None:
    assert normalized(blanks + text.upper() + end + blanks) == normalized(text.upper())


@given(st.text())
def test_a_text_matches_itself_and_normalizing_settles(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


def test_patterns_match_anywhere_and_mind_the_case() -> None:
    rows = _rows(
        response=["It is 4 pm", "four", "Yes.", "no"],
        pattern=[r"\b4\b", r"\b4\b", "(?i)^yes", ""],
    )
    assert pattern_match(rows) == pytest.approx(2 / 3)


def test_a_pattern_that_never_ends_is_an_error() -> None:
    rows = _rows(response=["a" * 60 + "b"], pattern=["^(a|a)+$"])
    with pytest.raises(PatternError, match="takes more than 2 s on a text of 61 characters"):
        pattern_match(rows)


@pytest.mark.parametrize("field", ["answer", "pattern"])
def test_a_set_without_answers_says_which_field_is_missing(field: str) -> None:
    match = exact_match if field == "answer" else pattern_match
    with pytest.raises(MeasureError, match=f"no instruction carries the field '{field}'"):
        match(_rows(response=["a", "b"]))
