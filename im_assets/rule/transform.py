"""The scale on which an indicator enters the rule.

The rule is fitted on means of sets and then read off single examples, whose values reach far beyond
any mean: a mixture of 64 examples has an MTLD of at most 70, one example has one of 250. On its own
scale such an indicator alone decides what is ranked first. ``log`` takes sign(v) ln(1 + |v|): the
member of parameter 0 of the modulus family (John and Draper 1980, *An alternative family of
transformations*, Applied Statistics 29(2), doi:10.2307/2986305), which is monotone and odd, so that
it holds for rewards below zero too. A set's indicator is the mean of its members' values on this
scale, so that the rule is linear in examples.
"""

from typing import Literal

import numpy as np
import pandas as pd

Transform = Literal["none", "log"]
COLUMN = "transform"  # of a table of points: the scale that its indicators are on


def transformed(values: "pd.Series | np.ndarray | float", transform: Transform) -> np.ndarray:
    """Values of an indicator on the rule's scale, float64 of the same shape."""
    found = np.asarray(values, dtype=float)
    if transform == "none":
        return found
    return np.asarray(np.copysign(np.log1p(np.abs(found)), found))


def restored(value: float, transform: Transform) -> float:
    """The value of an indicator whose place on the rule's scale is given."""
    return value if transform == "none" else float(np.copysign(np.expm1(abs(value)), value))


def scaled(name: str, transform: Transform) -> str:
    """An indicator on the rule's scale, in formulas and on axes: ``log1p(mtld)``."""
    return name if transform == "none" else f"log1p({name})"


def scale_of(points: pd.DataFrame) -> Transform:
    """The scale that the indicators of a table of points are on; a table that does not say holds
    them as they are.

    Raises ValueError for one of several scales, or of one that is not known.
    """
    found = set(points[COLUMN]) if COLUMN in points else {"none"}
    if len(found) > 1 or not found <= {"none", "log"}:
        raise ValueError(
            f"the points are on the scales {sorted(map(str, found))}, and have to be on one of "
            "none and log; materialize indicator_table again"
        )
    return "log" if found == {"log"} else "none"
