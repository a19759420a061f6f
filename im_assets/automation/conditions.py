"""What follows a real change by itself: points, rule, evidence, verdicts, selection, report.

Conditions are declared on what only calculates, in seconds. Whatever finetunes, scores, evaluates
or asks a judge is started by people, by the refit, or not at all. An asset is due when the content
of its parents has changed (their data versions; a table written again with the same rows is no
change), and is made when they are whole, checked and at rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial

import dagster as dg
from dagster import AutomationCondition as Condition

from im_assets.automation.switch import sensor_status
from im_resources.study import Study

NAME = "automation_sensor"
INTERVAL = 30  # seconds between two looks
TAGS = {"automation/started_by": NAME}  # on the runs that the sensor starts

# The rooms that calculate from what others have measured. Judging is none: its answers are
# generated, and its verdicts may cost money.
CALCULATING = {
    "rounds", "rule", "evidence", "selection", "sizes", "univariate", "validation", "reporting",
}  # fmt: skip
# The report says of everything else that it is not there.
REPORTED_ON = {dg.AssetKey("indicator_table"), dg.AssetKey("quality_rule")}


def with_conditions(
    assets: Sequence[dg.AssetsDefinition],
    checks: Iterable[dg.AssetsDefinition],
    study: Study,
) -> list[dg.AssetsDefinition]:
    """The assets with conditions and freshness policies, where they get some."""
    specs = {spec.key: spec for asset in assets for spec in asset.specs}
    last = last_parents(specs)
    checked = {
        check.asset_key
        for owner in (*assets, *checks)
        for check in owner.check_specs
        if check.blocking
    }
    policy = freshness(study)
    dated = {dg.AssetKey(name) for name in ("quality_rule", *selections(study))}

    def automatic(asset: dg.AssetsDefinition, spec: dg.AssetSpec) -> dg.AssetSpec:
        if spec.key in dated:
            spec = spec.replace_attributes(freshness_policy=policy)
        if not calculates(asset, spec) or not parents_of(spec):  # a ready rule follows nothing
            return spec
        needed = parents_of(spec)
        if spec.group_name == "reporting":
            needed &= REPORTED_ON
        due = condition(last[spec.key], last[spec.key] - checked, needed)
        return spec.replace_attributes(automation_condition=due)

    return [asset.map_asset_specs(partial(automatic, asset)) for asset in assets]


def condition(
    triggers: set[dg.AssetKey], together: set[dg.AssetKey], needed: set[dg.AssetKey]
) -> Condition[dg.AssetKey]:
    """When an asset is requested.

    Args:
        triggers: the parents of which a change counts.
        together: those of them with which it may be made in one run. Of the others the content and
            the blocking checks have to be known first.
        needed: the parents that have to be there, and to have passed their blocking checks.
    """

    def chosen(keys: set[dg.AssetKey]) -> dg.AssetSelection:
        return dg.AssetSelection.assets(*sorted(keys))

    # A run that makes the parent and this asset, such as the refit, does not leave it behind.
    changed = Condition.data_version_changed() & ~Condition.executed_with_root_target()
    news = (
        Condition.newly_missing()
        | Condition.any_deps_match(changed).allow(chosen(triggers)).with_label("a parent changed")
        | Condition.any_deps_match(Condition.will_be_requested())
        .allow(chosen(together))
        .with_label("a parent is requested")
    ).with_label("news")
    # A run of the sensor has seen what was there when it was requested, and not what came later;
    # of others, such as a job's, it is enough that they have made the asset.
    made_by_others = Condition.newly_updated() & ~Condition.executed_with_tags(tag_values=TAGS)
    handled = (Condition.newly_requested() & ~news) | made_by_others
    missing = Condition.any_deps_missing().allow(chosen(needed))
    passed = Condition.all_deps_blocking_checks_passed().allow(chosen(needed))
    return (
        news.since(handled.with_label("requested, or made by another run")).with_label("due")
        & (~missing).with_label("its parents are there, in every partition")
        & passed.with_label("their blocking checks have passed")
        & (~Condition.any_deps_in_progress()).with_label("no run or backfill makes a parent")
        & (~Condition.in_progress()).with_label("no run or backfill makes it")
    ).with_label("follows a real change")


def calculates(asset: dg.AssetsDefinition, spec: dg.AssetSpec) -> bool:
    """Whether the asset may follow by itself: it only calculates, and has no partitions."""
    return spec.group_name in CALCULATING and spec.partitions_def is None and asset.op.pool is None


def parents_of(spec: dg.AssetSpec) -> set[dg.AssetKey]:
    """The assets that this one is made from."""
    return {dep.asset_key for dep in spec.deps}


def last_parents(specs: Mapping[dg.AssetKey, dg.AssetSpec]) -> dict[dg.AssetKey, set[dg.AssetKey]]:
    """Each asset's parents without those that another of its parents is made from.

    Losses are made from the evaluation set: when that changes, the points wait for the losses. A
    searched size is made from the rule: the selection waits for a size that belongs to it.
    """
    found: dict[dg.AssetKey, set[dg.AssetKey]] = {}

    def above(key: dg.AssetKey) -> set[dg.AssetKey]:
        if key not in found:
            parents = parents_of(specs[key]) if key in specs else set()
            found[key] = parents.union(*(above(parent) for parent in parents))
        return found[key]

    return {
        key: {p for p in parents_of(spec) if not any(p in above(q) for q in parents_of(spec))}
        for key, spec in specs.items()
    }


def selections(study: Study) -> list[str]:
    """The assets with what is selected, one a pool."""
    return [f"{pool}_selection" for pool in study.pools]


def freshness(study: Study) -> dg.FreshnessPolicy | None:
    """How old rule and selections may be, where somebody sees to it that they are made."""
    if not study.automation:
        return None
    days = study.refit.fresh_days
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(days=days), warn_window=timedelta(days=days) * 0.9
    )


def definitions(study: Study) -> dg.Definitions:
    """The sensor that looks at the conditions."""
    sensor = dg.AutomationConditionSensorDefinition(
        NAME,
        target=dg.AssetSelection.all(),
        default_status=sensor_status(study),
        minimum_interval_seconds=INTERVAL,
        run_tags=TAGS,
        description="Makes points, rule, evidence, verdicts, selection and report again when what "
        "they are made from has really changed, is whole and has passed its checks. It never "
        "finetunes, scores, evaluates or asks a judge.",
    )
    return dg.Definitions(sensors=[sensor])
