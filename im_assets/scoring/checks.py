"""Whether an indicator tells examples apart at all: one that hardly varies is no ground for a rule,
and is more often a column that was filled with a default, or a scorer that does not see the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
import pandas as pd

from im_assets.common.presentation import preview
from im_resources.warehouse import Warehouse

COMMON = 0.95  # an indicator of which so large a share has one value is degenerate
CHECK = "indicators_tell_examples_apart"


@dataclass(frozen=True)
class Commonest:
    """The value that most examples have of an indicator, and their share."""

    indicator: str
    value: float
    share: float

    @property
    def degenerate(self) -> bool:
        return self.share >= COMMON

    def __str__(self) -> str:
        if self.share == 1:
            return f"{self.indicator} is {self.value:g} for every example"
        return f"{self.indicator} is {self.value:g} for {self.share:.1%} of the examples"


def commonest(asset: str, warehouse: Warehouse) -> list[Commonest]:
    """The commonest value of each indicator in a table of scores."""
    found = warehouse.query("commonest_values.sql", {"scores": asset})
    return [
        Commonest(str(name), float(value), float(share))
        for name, value, share in zip(
            found["indicator"], found["value"], found["share"], strict=True
        )
    ]


def told(found: Sequence[Commonest]) -> str:
    """What is degenerate, in words."""
    bad = [one for one in found if one.degenerate]
    if not bad:
        return f"no value of an indicator is shared by {COMMON:.0%} of the examples"
    return (
        "; ".join(map(str, bad)) + ": it tells hardly any examples apart. See whether its column, "
        "file or backend is the right one, or leave it out (scoring.indicators)"
    )


def apart_check(asset: str) -> dg.AssetChecksDefinition:
    """The check of a table of scores: a warning where an indicator is degenerate."""

    @dg.asset_check(
        asset=asset,
        name=CHECK,
        description=f"No indicator has one value for {COMMON:.0%} of the examples",
    )
    def apart(warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
        """Warns with what is degenerate."""
        found = commonest(asset, warehouse)
        return dg.AssetCheckResult(
            passed=not any(one.degenerate for one in found),
            severity=dg.AssetCheckSeverity.WARN,
            description=told(found),
            metadata={"commonest values": preview(pd.DataFrame(found), rows=len(found))},
        )

    return apart
