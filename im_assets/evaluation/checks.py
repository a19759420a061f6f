"""Blocking checks on the evaluation losses."""

import dagster as dg
import numpy as np
import pandas as pd


@dg.asset_check(asset="base_losses", blocking=True)
def base_losses_are_finite(base_losses: pd.DataFrame) -> dg.AssetCheckResult:
    """Every loss of the base model is a positive, finite number."""
    return losses_are_finite(base_losses)


@dg.asset_check(asset="eval_losses", blocking=True)
def eval_losses_are_finite(eval_losses: pd.DataFrame) -> dg.AssetCheckResult:
    """Every loss of every finetuned model is a positive, finite number."""
    return losses_are_finite(eval_losses)


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
