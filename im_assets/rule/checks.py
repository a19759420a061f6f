"""What has to hold before a rule is fitted: every number is one. And a warning of a rule whose
coefficients cannot be read one by one.

That every point is there, and that its parts belong together, is experiments.checks' matter.
"""

from collections.abc import Sequence

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.experiments.experiment import some
from im_assets.rule.document import load_rule
from im_assets.rule.fitting import HIGH_VIF
from im_assets.rule.target import PAPER, Target
from im_resources.study import Study


@dg.asset_check(asset="indicator_table", blocking=True)
def indicator_table_is_finite(
    indicator_table: pd.DataFrame, study: dg.ResourceParam[Study]
) -> dg.AssetCheckResult:
    """Every indicator of the study and the target are there, and finite, for every point."""
    faults = value_faults(indicator_table, list(study.scoring.indicators), Target.of(study))
    return dg.AssetCheckResult(
        passed=not faults,
        description="; ".join(faults) or "all values are finite",
        metadata={"points": len(indicator_table), "faults": faults},
    )


@dg.asset_check(asset="quality_rule")
def indicators_are_not_collinear(quality_rule: pd.DataFrame) -> dg.AssetCheckResult:
    """No indicator of the rule is nearly a combination of the others: a warning, since the rule's
    ranking holds all the same, but a single coefficient and its sign do not."""
    terms = load_rule(quality_rule).coefficients
    factors = {term.name: term.vif for term in terms if term.vif is not None}
    high = {name: vif for name, vif in factors.items() if vif > HIGH_VIF}
    return dg.AssetCheckResult(
        passed=not high,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(
            f"{name}: variance inflation factor {v:.1f}" for name, v in high.items()
        )
        or f"no variance inflation factor above {HIGH_VIF:.0f}",
        metadata={"variance inflation factors": dg.MetadataValue.json(factors)},
    )


def drawn_by_this_rule_check(asset: str, samples: str) -> dg.AssetChecksDefinition:
    """The blocking check ``drawn_by_this_rule`` of an asset about sets that a rule selected.

    Args:
        asset: its table has a column ``rule_id``.
        samples: the asset with the sets, of which all are compared with one another.
    """

    @dg.asset_check(
        asset=asset,
        name="drawn_by_this_rule",
        description="Every set was drawn by the rule in quality_rule, and all from one state of "
        "the pool and its scores.",
        blocking=True,
        additional_ins={
            "drawn": dg.AssetIn(samples),
            "quality_rule": dg.AssetIn("quality_rule"),
        },
    )
    def check(
        about: pd.DataFrame, drawn: pd.DataFrame, quality_rule: pd.DataFrame
    ) -> dg.AssetCheckResult:
        now = load_rule(quality_rule).id
        earlier, states = int((about["rule_id"] != now).sum()), drawn["version"].nunique()
        faults = [
            f"{earlier} of {len(about)} were drawn by an earlier rule" if earlier else "",
            f"{samples} were drawn from {states} states of the pool" if states > 1 else "",
        ]
        words = " and ".join(filter(None, faults))
        return dg.AssetCheckResult(
            passed=not words,
            description=f"{words}; materialize {samples} for all of them, and what follows"
            if words
            else f"all {len(about)} by rule {now}",
            metadata={"rule": now, "drawn by an earlier rule": earlier, "states": states},
        )

    return check


def value_faults(
    table: pd.DataFrame, indicators: Sequence[str], target: Target = PAPER
) -> list[str]:
    """One line for each column that is absent, or holds missing or infinite values."""
    faults = []
    for name in dict.fromkeys((*indicators, target.measure, target.column)):
        if name not in table:
            faults.append(f"{name}: no such column")
            continue
        bad = ~np.isfinite(table[name].to_numpy(dtype=float, na_value=np.nan))
        if bad.any():
            faults.append(f"{name}: not finite for {some(list(table['partition'][bad]))}")
    return faults
