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
from im_assets.rule.holding import Holding, holding
from im_assets.rule.target import PAPER, Target
from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse


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


HOLDS = dg.AssetCheckSpec(
    "rule_still_holds",
    asset="indicator_table",
    description="The rule of before, on the mixtures that it was not fitted on: whether it ranks "
    "them better than chance, and is right on average. A warning, made before the next rule is "
    "fitted.",
    # It is a step with its asset, and so the automation requests it by name. Then a run has the
    # checks that were requested and no others, unless one of these has a condition.
    automation_condition=dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.will_be_requested()
    ),
)


def still_holds(points: pd.DataFrame, study: Study, warehouse: Warehouse) -> dg.AssetCheckResult:
    """The check ``rule_still_holds``: the fitted rule that is in the warehouse, and new points.

    That rule was made of an earlier table of points: a dependency on it would be a circle.
    """
    found = _put_to_the_test(points, study, warehouse)
    numbers: dict[str, float | None] = {"mixtures": found.mixtures}
    if found.rank is not None:
        rank = found.rank
        numbers |= {
            "rank correlation": rank.value,
            "rank correlation, low": rank.low,
            "rank correlation, high": rank.high,
        }
    for name, interval in (("mean error", found.shift), ("slope", found.slope)):
        if interval is not None:
            numbers |= {
                name: interval.value,
                f"{name}, low": interval.low,
                f"{name}, high": interval.high,
            }
    return dg.AssetCheckResult(
        check_name=HOLDS.name,
        passed=not found.refit_due,
        severity=dg.AssetCheckSeverity.WARN,
        description=found.words,
        metadata={"verdict": found.verdict, "refit due": found.refit_due, **numbers},
    )


def made_with(points: pd.DataFrame) -> str:
    """The fingerprint of what the points were finetuned and measured with."""
    columns = points[["settings_id", "base_id", "evaluation_id"]].astype(str)
    return fingerprint("made with", sorted(map(list, columns.drop_duplicates().to_numpy())))


def _put_to_the_test(points: pd.DataFrame, study: Study, warehouse: Warehouse) -> Holding:
    if not warehouse.has_table("quality_rule"):
        return Holding("untested", 0, "not tested: there is no rule yet")
    rule = load_rule(warehouse.read_table("quality_rule"))
    if rule.source != "fitted":
        return Holding("untested", 0, "not tested: the rule is a published one")
    if not rule.trials:
        return Holding("untested", 0, "not tested: the rule does not say what it was fitted on")
    mixtures = points[points["experiment"] == "mixtures"] if len(points) else points
    new = mixtures[~mixtures["trial_id"].isin(rule.trials)] if len(points) else points
    if len(new) and (
        rule.predicts != Target.of(study)
        or set(new["values_id"]) != {rule.values_id}
        or made_with(new) != rule.made_with
    ):
        words = (
            "not tested: the rule is of another target, of other versions of the indicators, or of "
            "finetunes that were made or measured otherwise"
        )
        return Holding("untested", len(new), words)
    return holding(rule, new, study.rule.confidence)


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
