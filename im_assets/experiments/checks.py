"""Blocking checks on the evaluation losses."""

import dagster as dg
import numpy as np
import pandas as pd


def finite_losses_check(asset: str) -> dg.AssetChecksDefinition:
    """The blocking check ``<asset>_are_finite``: every loss is a positive, finite number."""

    @dg.asset_check(
        asset=asset,
        name=f"{asset}_are_finite",
        description="Every loss is a positive, finite number.",
        blocking=True,
    )
    def check(losses: pd.DataFrame) -> dg.AssetCheckResult:
        return losses_are_finite(losses)

    return check


def losses_are_finite(losses: pd.DataFrame) -> dg.AssetCheckResult:
    """Fails with the number of losses that are not positive and finite, and shows the first."""
    good = np.isfinite(losses["loss"]) & (losses["loss"] > 0)
    bad = losses[~good]
    return dg.AssetCheckResult(
        passed=bad.empty and len(losses) > 0,
        metadata={
            "losses": len(losses),
            "not finite": len(bad),
            "first": str(bad.head(3).to_dict("records")),
        },
    )
