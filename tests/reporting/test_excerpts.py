from hypothesis import given
from hypothesis import strategies as st

from im_assets.reporting.sections.examples import cut


@given(st.text())
def test_an_excerpt_is_one_short_printable_line(text: str) -> None:
    found = cut(text)
    assert len(found) <= 300
    assert found.isprintable()
