"""The assets of an experiment: its samples, what is finetuned on them, and what is measured.

One factory makes them all, whatever a set is: mixtures, bins, selections, sizes.
"""

import dagster as dg

from im_assets.common.cuts import cuts_check
from im_assets.common.presentation import JOB
from im_assets.experiments.assets.answers import answers_asset, base_answers, verdicts_asset
from im_assets.experiments.assets.trials import (
    adapters_asset,
    base_losses,
    losses_asset,
    samples_asset,
)
from im_assets.experiments.checks import finite_losses_check, holdout_leaves_enough
from im_assets.experiments.experiment import Experiment
from im_assets.experiments.measures import rows_read
from im_resources.study import Study


def definitions_of(experiment: Experiment, study: Study) -> dg.Definitions:
    """The assets and checks that every experiment has, and those that its measures need."""
    more = [answers_asset(experiment)] if "answers" in experiment.rows else []
    more += [verdicts_asset(experiment, study)] if "verdicts" in experiment.rows else []
    made = [
        samples_asset(experiment),
        adapters_asset(experiment),
        losses_asset(experiment),
        *more,
    ]
    if experiment.job is not None:
        job = {JOB: experiment.job}
        made = [a.map_asset_specs(lambda spec: spec.merge_attributes(metadata=job)) for a in made]
    return dg.Definitions(
        assets=made,
        asset_checks=[
            finite_losses_check(experiment.losses, experiment.gate is not None),
            cuts_check(experiment.adapters),
        ],
    )


def definitions(study: Study) -> dg.Definitions:
    """What all experiments share: the base model's own losses, and answers where needed."""
    if study.trains_nothing:
        return dg.Definitions()
    answers = [base_answers] if rows_read(study) else []
    split = [] if study.evaluation.holdout is None else [holdout_leaves_enough]
    return dg.Definitions(
        assets=[base_losses, *answers],
        asset_checks=[finite_losses_check("base_losses"), cuts_check("base_losses"), *split],
    )
