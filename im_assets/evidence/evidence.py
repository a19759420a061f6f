"""Everything that speaks for or against a rule, as one table (docs/rule.md says how to read it)."""

from collections.abc import Mapping

import pandas as pd

from im_assets.evidence.deciding import decision_findings, noise_of
from im_assets.evidence.diagnostics import collinearity, residual_diagnostics
from im_assets.evidence.fewer_mixtures import design_value
from im_assets.evidence.findings import Finding, findings_table
from im_assets.evidence.kinds import ExperimentLeftOut, Permutation
from im_assets.evidence.resampling import bootstrap
from im_assets.evidence.unseen import learning_curve, leave_one_group_out
from im_assets.rule.choosing import Points
from im_assets.rule.model import Rule
from im_resources.study import RuleSettings


def rule_findings(
    table: pd.DataFrame,
    source_of: Mapping[str, str],
    rule: Rule,
    settings: RuleSettings,
    experiment_of: Mapping[str, str] | None = None,
    sources: int | None = None,
    drawn: bool = True,
) -> pd.DataFrame:
    """The evidence about a fitted rule; columns as in `findings.COLUMNS`. The same input gives the
    same table.

    Args:
        table: seed, the rule's target and its candidates, as `fit_rule` takes it.
        source_of: the largest source of each seed's mixture.
        experiment_of: the experiment of each seed, where the rule was fitted on points of several;
            of one there is nothing to leave out.
        sources: how many the mixtures are drawn from, for the section ``design``.
        drawn: whether the study draws its mixtures; else there is none to choose, and no such
            section.

    Raises ValueError for a rule that was not fitted, a table that it was not fitted on, or a seed
    whose source or experiment is not given.
    """
    if rule.source != "fitted":
        raise ValueError(f"evidence is about a fitted rule, and this one is {rule.source}")
    mixtures = Points.of(table, rule.candidates, rule.predicts.column)
    if set(mixtures.seeds) != set(rule.loo_predictions):
        raise ValueError(
            "the rule was fitted on other mixtures than the indicator table holds; materialize "
            "quality_rule again"
        )
    if lacking := sorted(set(mixtures.seeds) - set(source_of)):
        raise ValueError(f"no mixed_samples of {', '.join(lacking[:5])}; materialize them again")
    # How fast it learns is asked of the shape that the rule has, which the choice among several
    # would take hours to ask of.
    as_it_is = settings.model_copy(update={"shapes": (rule.shape,)})
    return findings_table(
        [
            *bootstrap(mixtures, rule, settings),
            *_against_chance(rule),
            *leave_one_group_out(mixtures, source_of, settings),
            *_without_experiments(mixtures, experiment_of, settings),
            *(residual_diagnostics(mixtures, rule) if rule.shape == "line" else []),
            *collinearity(mixtures),
            *learning_curve(mixtures, as_it_is),
            *(design_value(mixtures, as_it_is, sources) if drawn else ()),
            *decision_findings(
                mixtures, table, rule, settings, noise_of(table, mixtures.y, rule.loo_rmse)
            ),
        ]
    )


def _against_chance(rule: Rule) -> list[Finding]:
    """Section ``permutation``: the test that was made when the rule was fitted."""
    if rule.chance is None:
        raise ValueError(
            f"the rule {rule.id} does not say what chance alone comes to: it was fitted by an "
            "earlier version; materialize quality_rule again"
        )
    shuffles = rule.chance.shuffles
    return [
        Permutation(
            item=item, value=fit.value, low=fit.low, high=fit.high, p=fit.p, shuffles=shuffles
        )
        for item, fit in (("r2", rule.chance.r2), ("loo_r2", rule.chance.loo_r2))
    ]


def _without_experiments(
    mixtures: Points, experiment_of: Mapping[str, str] | None, settings: RuleSettings
) -> list[Finding]:
    if experiment_of is None:
        return []
    if lacking := sorted(set(mixtures.seeds) - set(experiment_of)):
        raise ValueError(f"no experiment is given for the point(s) {', '.join(lacking[:5])}")
    of = {seed: experiment_of[seed] for seed in mixtures.seeds}
    if len(set(of.values())) < 2:
        return []
    return leave_one_group_out(mixtures, of, settings, ExperimentLeftOut)
