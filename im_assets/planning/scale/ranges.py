"""Numbers that are known from and to: interval arithmetic, so that no doubt is lost on the way."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A quantity that lies between ``low`` and ``high``, both at least 0.

    Ends are treated as independent: of sums and products the result holds whatever is true of the
    parts, and may be wider than it had to be.

    Raises ValueError when the ends are no numbers, negative or the wrong way round.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"from {self.low} to {self.high}: both ends have to be finite numbers")
        if not 0 <= self.low <= self.high:
            raise ValueError(f"from {self.low} to {self.high}: expected 0 <= from <= to")

    @classmethod
    def of(cls, value: "Range | float") -> "Range":
        """An exact number as a range."""
        return value if isinstance(value, Range) else cls(float(value), float(value))

    def __add__(self, other: "Range | float") -> "Range":
        other = Range.of(other)
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        other = Range.of(other)
        return Range(self.low * other.low, self.high * other.high)

    def __truediv__(self, other: "Range | float") -> "Range":
        """Raises ZeroDivisionError where the divisor can be 0."""
        other = Range.of(other)
        return Range(self.low / other.high, self.high / other.low)

    __radd__ = __add__
    __rmul__ = __mul__

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def factor(self) -> float:
        """How many times the high end is the low one; infinite from 0."""
        if self.high == 0:
            return 1.0
        return self.high / self.low if self.low else math.inf


def total(parts: Iterable[Range | None]) -> Range | None:
    """The sum; None where a part is not known."""
    found = Range(0, 0)
    for part in parts:
        if part is None:
            return None
        found = found + part
    return found


def product(*factors: Range | float | None) -> Range | None:
    """The product; None where a factor is not known."""
    found = Range(1, 1)
    for factor in factors:
        if factor is None:
            return None
        found = found * factor
    return found
