"""The check that says when a selection is of one kind of example, whatever the rule says of it."""

import dagster as dg
import pandas as pd

from im_assets.common.presentation import preview
from im_assets.selection.composition import (
    LENGTH,
    composition_table,
    compositions,
    concentration,
)


def composition_check(pool: str) -> dg.AssetChecksDefinition:
    """The check ``selection_is_not_of_one_kind`` of an unseen pool's selection; it warns."""

    @dg.asset_check(
        asset=f"{pool}_selection",
        name="selection_is_not_of_one_kind",
        additional_ins={"examples": dg.AssetIn(f"{pool}_dataset")},
        description="The selection's shares of language, source, category and length are not far "
        "from the pool's",
    )
    def check(selection: pd.DataFrame, examples: pd.DataFrame) -> dg.AssetCheckResult:
        """Warns with the shares when a quarter of the selection, and more than chance would have,
        would have to be other examples for its composition to be the pool's."""
        examples = examples.assign(**{LENGTH: examples["output"].str.len()})
        found = compositions(examples, selection["example_id"])
        said = concentration(found)
        shares = composition_table(found)
        return dg.AssetCheckResult(
            passed=not said,
            severity=dg.AssetCheckSeverity.WARN,
            description=said or "the selection is composed much like the pool",
            metadata={
                "shares": preview(shares, rows=len(shares)),
                **{f"distance, {one.column}": one.distance for one in found},
            },
        )

    return check
