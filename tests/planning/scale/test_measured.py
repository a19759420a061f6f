"""What was really measured lies within what is calculated; and what does not is known."""

import pytest

from im_assets.planning.scale.checks import Check, checks

FOUND = checks()


@pytest.mark.parametrize("check", [c for c in FOUND if c.valid], ids=lambda check: check.what)
def test_the_measurement_is_within_the_range(check: Check) -> None:
    assert check.inside, f"{check.measured} {check.unit} is not in {check.calculated}"
    # An error of ten times would be seen, on either side.
    assert check.measured not in check.calculated * 10
    assert check.measured not in check.calculated * 0.1


def test_some_were_no_source_of_any_coefficient() -> None:
    assert len([c for c in FOUND if c.valid and not c.used]) >= 5


def test_a_gpu_is_known_within_a_factor_of_three() -> None:
    rates = [c for c in FOUND if c.valid and c.unit in ("h", "min", "tokens/s")]
    assert rates
    assert max(check.calculated.factor for check in rates) < 3


def test_a_small_model_on_a_gpu_is_outside_as_the_page_says() -> None:
    [outside] = [check for check in FOUND if not check.valid]
    assert not outside.inside
    assert outside.measured > outside.calculated.high
