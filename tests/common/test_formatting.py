import numpy as np
import pytest

from im_assets.common.formatting import between, plain, shown


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "loss", "–"),
        (float("nan"), "loss", "–"),
        (2.34567, "loss", "2.3457"),
        (-0.012, "signed", "\u22120.0120"),
        (0.012, "signed", "+0.0120"),
        (-0.001, "two", "0.00"),
        (0.0004, "p", "<0.001"),
        (0.25, "percent", "25.0\u00a0%"),
        (12345, "int", "12,345"),
        (1.5e-7, "number", "1.50e\u221207"),
        (True, "text", "yes"),
    ],
)
def test_numbers_as_text(value: object, kind: str, text: str) -> None:
    assert shown(value, kind) == text  # type: ignore[arg-type]


def test_missing_numbers_are_null_and_dashes() -> None:
    assert plain(np.float64("inf")) is None
    assert plain(np.int64(3)) == 3
    assert between(1.0, None) == "–"
