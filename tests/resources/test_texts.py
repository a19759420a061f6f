"""Texts of others are shown as one line that does nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_resources.texts import one_line


@given(st.text(), st.integers(1, 300))
def test_an_excerpt_is_one_short_printable_line(text: str, most: int) -> None:
    found = one_line(text, most)
    assert len(found) <= most
    assert found.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n b\t\tc", "a b c"),
        ("clear \x1b[2J\x07", r"clear \x1b[2J\x07"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("half \ud800 a pair", r"half \ud800 a pair"),
        ("ünï 日本 😀", "ünï 日本 😀"),
        ("x" * 5000, "x" * 49 + "…"),
    ],
)
def test_what_does_not_print_is_seen(text: str, shown: str) -> None:
    assert one_line(text, 50) == shown
