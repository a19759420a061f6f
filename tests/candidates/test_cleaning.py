"""What is kept, what is not, and that nothing disappears."""

import os
import subprocess
import sys
import unicodedata

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.candidates.cleaning import clean
from im_assets.candidates.content import example_id
from im_assets.candidates.quarantine import KEPT_COLUMNS
from im_assets.candidates.reading import REJECTED_COLUMNS
from im_resources.study import PROJECT_ROOT, CleaningSettings

NOTHING = pd.DataFrame(columns=REJECTED_COLUMNS)
TEXT = st.text(alphabet="ab é\u0301\u00e9\n\x1f", max_size=6)
LONG = " ".join(f"word{i}" for i in range(60))


def _rows(*texts: tuple[str, str, str], source: str = "s") -> pd.DataFrame:
    frame = pd.DataFrame(texts, columns=["instruction", "input", "output"])
    return frame.assign(source=source, line=range(1, len(frame) + 1), category="")


def _evaluation(instruction: str, input_: str = "", output: str = "-") -> pd.DataFrame:
    return pd.DataFrame(
        {"eval_id": ["e1"], "instruction": [instruction], "input": [input_], "output": [output]}
    )


def _reasons(
    rows: pd.DataFrame, evaluation: pd.DataFrame | None = None, **changed: float
) -> dict[int, str]:
    _, out = clean(rows, NOTHING, CleaningSettings.model_validate(changed), evaluation)
    return dict(zip(out["line"], out["reason"], strict=True))


@given(TEXT, TEXT, TEXT)
def test_identity_ignores_unicode_form_and_outer_space(a: str, b: str, c: str) -> None:
    plain = example_id(a, b, c)
    assert len(plain) == 16
    assert plain == example_id(*(unicodedata.normalize("NFD", t) for t in (a, b, c)))
    assert plain == example_id(f" {a}\n", f"\t{b}", f"{c} ")


def test_identity_keeps_the_fields_apart() -> None:
    assert example_id("ab", "", "c") != example_id("a", "b", "c") != example_id("a", "", "bc")
    assert example_id("a\x1fb", "c") == example_id("ab", "c") != example_id("a", "b", "c")


def test_identity_is_the_same_for_ever() -> None:
    assert example_id("Name a colour.", "", "Blue.") == "e15f8121ef23388f"


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=12), st.integers(0, 3))
def test_every_row_is_kept_or_quarantined(texts: list[tuple[str, str, str]], bad: int) -> None:
    rejected = pd.DataFrame(
        [("s", 100 + i, "unreadable", "bad JSON", "") for i in range(bad)], columns=REJECTED_COLUMNS
    )
    kept, out = clean(_rows(*texts), rejected, CleaningSettings(), None)
    lines = kept["line"].tolist() + out["line"].tolist()
    assert sorted(lines) == [*range(1, len(texts) + 1), *range(100, 100 + bad)]
    assert list(kept.columns) == KEPT_COLUMNS
    assert kept["example_id"].is_unique


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=12), st.randoms(use_true_random=False))
def test_order_does_not_change_what_survives_exact_duplicates(texts, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(texts, len(texts))
    survivors = [
        set(clean(_rows(*order), NOTHING, CleaningSettings(), None)[0]["example_id"])
        for order in (texts, shuffled)
    ]
    assert survivors[0] == survivors[1]


def test_empty_and_too_long_rows() -> None:
    rows = _rows((" ", "", "b"), ("a", "", "\n"), ("a", "b" * 50, "c" * 50), ("a", "", "b"))
    assert _reasons(rows, max_chars=100) == {
        1: "empty instruction",
        2: "empty output",
        3: "too long: 101 characters, max_chars is 100",
    }


def test_the_first_of_duplicates_stays_also_across_sources() -> None:
    rows = pd.concat(
        [_rows(("Hi", "", "caf\u00e9")), _rows(("Hi ", "", "cafe\u0301"), source="t")],
        ignore_index=True,
    )
    kept, out = clean(rows, NOTHING, CleaningSettings(), None)
    assert kept["source"].tolist() == ["s"]
    assert out["reason"].tolist() == ["exact duplicate of s line 1"]
    assert out["excerpt"].tolist() == ["Hi → café"]


def test_near_duplicates_by_measured_similarity() -> None:
    changed_end = LONG.replace("word59", "other")  # one shingle of 57 differs
    changed_middle = LONG.replace("word30", "other")  # five of 57 differ
    rows = _rows(("Go", "", LONG), ("Go", "", changed_end), ("Go", "", changed_middle))
    assert _reasons(rows) == {2: "near duplicate of s line 1"}
    assert list(_reasons(rows, near_duplicate_similarity=0.8)) == [2, 3]
    assert _reasons(rows, near_duplicate_similarity=1.0) == {}


def test_punctuation_and_case_do_not_make_a_text_new() -> None:
    rows = _rows(("Go", "", LONG), ("GO!", "", LONG.upper().replace(" ", ", ")))
    assert _reasons(rows, near_duplicate_similarity=1.0) == {2: "near duplicate of s line 1"}


def test_short_texts_are_only_compared_exactly() -> None:
    assert _reasons(_rows(("Add", "1 + 2", "3"), ("Add", "1, 2", "3"))) == {}


def test_a_row_that_leaks_does_not_stand_in_for_its_duplicates() -> None:
    leak = "one two three four five six seven eight"
    rows = _rows(("Go", "", f"{LONG} {leak}"), ("Go", "", LONG))
    [(line, reason)] = _reasons(
        rows, _evaluation("x", "", leak), near_duplicate_similarity=0.5
    ).items()
    assert line == 1
    assert reason.startswith("leaks evaluation row e1")


def test_the_result_does_not_depend_on_the_process() -> None:
    code = (
        "from tests.candidates.test_cleaning import _rows, NOTHING, LONG\n"
        "from im_assets.candidates.cleaning import CleaningSettings, clean\n"
        "texts = [('Go', '', LONG.replace(f'word{i}', 'x')) for i in range(55)]\n"
        "kept, out = clean(_rows(*texts), NOTHING, CleaningSettings(), None)\n"
        "print(kept['example_id'].tolist(), out['reason'].tolist())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=PROJECT_ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] != b""


def test_every_reason_has_a_kind() -> None:
    rows = _rows(("", "", "x"), ("Go", "", "y" * 200), ("Add", "", "3"), ("Add", "", "3"))
    rejected = pd.DataFrame([("s", 9, "unreadable", "bad JSON", "")], columns=REJECTED_COLUMNS)
    _, out = clean(rows, rejected, CleaningSettings(max_chars=100), _evaluation("Sum"))
    assert dict(zip(out["line"], out["kind"], strict=True)) == {
        9: "unreadable", 1: "empty", 2: "too long", 4: "exact duplicate"
    }  # fmt: skip


def test_two_questions_about_one_long_passage_are_no_duplicates() -> None:
    passage = " ".join(f"word{i}" for i in range(200))
    question = "Who wrote this passage and what was it that moved them?"
    rows = _rows(
        ("What happened to the seventh word of this passage?", passage, "It moved to the end."),
        (question, passage, "Nobody remembers that any more."),
        (question, f"{passage} end", "Nobody remembers that any more."),
    )
    assert _reasons(rows) == {3: "near duplicate of s line 2"}
