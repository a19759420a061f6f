"""The checks that say when a selection is not what it looks like: of one kind of example, by a rule
that chance gives as well, or of examples that the rule knows nothing of. They warn."""

import dagster as dg
import pandas as pd

from im_assets.common.presentation import preview
from im_assets.rule.document import load_rule
from im_assets.selection.composition import (
    composition_of,
    composition_table,
    concentration,
)
from im_assets.selection.reach import beyond_reach, reach
from im_resources.warehouse import Warehouse


def composition_check(pool: str) -> dg.AssetChecksDefinition:
    """The check ``selection_is_not_of_one_kind`` of an unseen pool's selection; it warns."""

    @dg.asset_check(
        asset=f"{pool}_selection",
        name="selection_is_not_of_one_kind",
        additional_deps=[f"{pool}_dataset"],
        description="The selection's shares of language, source, category and length are not far "
        "from the pool's",
    )
    def check(
        selection: pd.DataFrame, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.AssetCheckResult:
        """Warns with the shares when a quarter of the selection, and more than chance would have,
        would have to be other examples for its composition to be the pool's."""
        found = composition_of(f"{pool}_dataset", selection["example_id"], warehouse)
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


def chance_check(pool: str) -> dg.AssetChecksDefinition:
    """The check ``selection_is_beyond_chance`` of an unseen pool's selection; it warns."""

    @dg.asset_check(
        asset=f"{pool}_selection",
        name="selection_is_beyond_chance",
        description="The rule that the selection is by does better on mixtures left out than a "
        "rule of shuffled losses (selection.when_chance)",
    )
    def check(selection: pd.DataFrame) -> dg.AssetCheckResult:
        chance = bool(selection["beyond_chance"].eq(False).any())  # null: not tested
        return dg.AssetCheckResult(
            passed=not chance,
            severity=dg.AssetCheckSeverity.WARN,
            description="the selection is by a rule that shuffled losses give as well: another "
            "table of chance would have selected other examples"
            if chance
            else "no selection by a rule of chance",
        )

    return check


def reach_check(pool: str) -> dg.AssetChecksDefinition:
    """The check ``selection_is_within_reach`` of an unseen pool's selection; it warns."""

    @dg.asset_check(
        asset=f"{pool}_selection",
        name="selection_is_within_reach",
        additional_ins={
            "indicators": dg.AssetIn(f"{pool}_indicators"),
            "quality_rule": dg.AssetIn("quality_rule"),
        },
        description="Most of the selection lies, in every indicator of the rule, within what the "
        "rule was fitted on",
    )
    def check(
        selection: pd.DataFrame, indicators: pd.DataFrame, quality_rule: pd.DataFrame
    ) -> dg.AssetCheckResult:
        """Warns with the shares when more than half of the selection lies outside: there the rule
        is a guess, however well it ranks mixtures."""
        found = reach(load_rule(quality_rule), indicators, selection)
        said = beyond_reach(found)
        known = "most of the selection lies within what the rule was fitted on"
        return dg.AssetCheckResult(
            passed=not said,
            severity=dg.AssetCheckSeverity.WARN,
            description=said
            or (known if len(found) else "what the rule was fitted on is not known"),
            metadata={"outside": preview(found, rows=len(found))},
        )

    return check
