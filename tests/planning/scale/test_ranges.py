"""Interval arithmetic: whatever is true of the parts is inside the result."""

import itertools
import math

import pytest

from im_assets.planning.scale.ranges import Range, product, total

ONE, TWO = Range(1, 3), Range(2, 8)


def test_a_result_holds_what_any_true_values_give() -> None:
    for a, b in itertools.product((1, 2, 3), (2, 5, 8)):
        assert a + b in ONE + TWO
        assert a * b in ONE * TWO
        assert a / b in ONE / TWO
    found = (ONE + TWO, ONE * TWO, ONE / TWO)
    assert found == (Range(3, 11), Range(2, 24), Range(1 / 8, 3 / 2))
    found = (2 * ONE, ONE * 2, 1 + ONE)
    assert found == (Range(2, 6), Range(2, 6), Range(2, 4))


def test_its_factor_says_how_well_it_is_known() -> None:
    assert TWO.factor == 4
    assert Range(5, 5).factor == 1
    assert math.isinf(Range(0, 5).factor)
    assert Range(0, 0).factor == 1


@pytest.mark.parametrize("ends", [(2, 1), (-1, 1), (0, math.inf), (math.nan, 1)])
def test_ends_that_are_no_range_are_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="from"):
        Range(*ends)


def test_what_can_be_nothing_divides_nothing() -> None:
    with pytest.raises(ZeroDivisionError):
        ONE / Range(0, 1)


def test_one_unknown_part_makes_the_whole_unknown() -> None:
    assert total([ONE, TWO]) == Range(3, 11)
    assert total([ONE, None]) is None
    assert total([]) == Range(0, 0)
    assert product(ONE, 2, TWO) == Range(4, 48)
    assert product(ONE, None) is None
