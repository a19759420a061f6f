"""All finetunes of a validation are about one rule, and it is the rule that there is now."""

import dagster as dg
import pandas as pd

from im_assets.rule.document import load_rule


def one_rule_check() -> dg.AssetChecksDefinition:
    """The blocking check that every arm was drawn by the rule in quality_rule."""

    @dg.asset_check(
        asset="validation_runs",
        name="drawn_by_this_rule",
        description="Every arm was drawn by the rule in quality_rule; names those drawn by an "
        "earlier one.",
        blocking=True,
        additional_ins={"quality_rule": dg.AssetIn("quality_rule")},
    )
    def check(validation_runs: pd.DataFrame, quality_rule: pd.DataFrame) -> dg.AssetCheckResult:
        now = load_rule(quality_rule).id
        earlier = validation_runs.loc[validation_runs["rule_id"] != now, "arm"].tolist()
        words = (
            f"{len(earlier)} of {len(validation_runs)} were drawn by an earlier rule; materialize "
            "selection_samples for all arms, and what follows"
        )
        return dg.AssetCheckResult(
            passed=not earlier,
            description=words if earlier else f"all {len(validation_runs)} by rule {now}",
            metadata={"rule": now, "drawn by an earlier rule": len(earlier), "arms": earlier[:20]},
        )

    return check
