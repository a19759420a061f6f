"""The validation of selections: selection_samples → _adapters → _losses → the verdicts."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.presentation import presentation, preview, table
from im_assets.experiments.assets import definitions_of
from im_assets.experiments.checks import parts_agree_check
from im_assets.experiments.points import Parts
from im_assets.validation import verdicts as method
from im_assets.validation.arms import arms_of
from im_assets.validation.checks import one_rule_check
from im_assets.validation.experiment import validation_experiment
from im_assets.validation.figures import decile_figure, verdict_figure
from im_resources.gpu import GpuResource
from im_resources.study import Study, ValidationSettings

KINDS = {"python", "duckdb"}
RULE_ID = ("text", "Fingerprint of the rule that the finetunes are about")
RUN_COLUMNS = {
    "arm": ("text", "Partition key of the finetune"),
    "kind": ("text", "strategy, noise (a random subset again) or decile"),
    "strategy": ("text", "Arm of the validation"),
    "size": ("bigint", "Examples finetuned on"),
    "seed": ("bigint", "Seed of the finetune, and of a random strategy's draw"),
    "slice": ("bigint", "Slice of the pool by the rule's value, from 0; of deciles only"),
    "loss": ("double", "Evaluation loss"),
    "rule_id": RULE_ID,
}
NOISE_COLUMNS = {
    "source": ("text", "finetune seed: the same subset; random subset: another subset each"),
    "size": ("bigint", "Examples finetuned on"),
    "finetunes": ("bigint", "Finetunes behind the estimate"),
    "mean": ("double", "Their mean evaluation loss"),
    "sd": ("double", "Standard deviation of the evaluation loss"),
    "sd_low": ("double", "Lower end of its 95 % interval"),
    "sd_high": ("double", "Upper end"),
}
VERDICT_COLUMNS = {
    "strategy": ("text", "Arm of the validation"),
    "size": ("bigint", "Examples finetuned on"),
    "finetunes": ("bigint", "Finetunes of this arm"),
    "loss": ("double", "Mean evaluation loss"),
    "loss_low": ("double", "Lower end of its 95 % interval"),
    "loss_high": ("double", "Upper end"),
    "difference": ("double", "Mean loss less that of random subsets"),
    "difference_low": ("double", "Lower end of its interval, simultaneous over the strategies"),
    "difference_high": ("double", "Upper end"),
    "noise_units": ("double", "difference / standard deviation of single random finetunes"),
    "p": ("double", "Two-sided p of the difference, not adjusted"),
    "verdict": ("text", "better, worse, not distinguishable, or baseline"),
    "rule_id": RULE_ID,
}
DECILE_COLUMNS = {
    "decile": ("bigint", "Slice of the pool, 1 = lowest rule values"),
    "predicted": ("double", "Mean predicted log loss of the examples finetuned on"),
    "loss": ("double", "Evaluation loss"),
    "log_loss": ("double", "Its logarithm"),
    "spearman": ("double", "Of predicted and measured log loss over all slices"),
    "spearman_low": ("double", "Lower end of its 95 % bootstrap interval"),
    "spearman_high": ("double", "Upper end"),
    "rule_id": RULE_ID,
}


def definitions(study: Study) -> dg.Definitions:
    """The assets and checks of this room; none when the profile has no validation."""
    if study.validation is None:
        return dg.Definitions()
    settings: ValidationSettings = study.validation
    arms, experiment = arms_of(settings), validation_experiment(study)

    @dg.asset(
        ins={name: dg.AssetIn(name) for name in Parts.names(experiment)},
        **presentation("validation", KINDS, RUN_COLUMNS, reads=("evaluation.weighting",)),
    )
    def validation_runs(
        study: dg.ResourceParam[Study], gpu: GpuResource, **tables: pd.DataFrame
    ) -> dg.Output[pd.DataFrame]:
        """One row a finetune of the validation, with its evaluation loss; only those whose set,
        finetune and losses belong together."""
        parts = Parts.of(experiment, tables)
        good = parts.without(parts.faults(tables["eval_set"], study, gpu))
        runs = method.validation_runs(good.loss_of(study.evaluation.weighting), arms)
        rule_of = good.samples.groupby("arm")["rule_id"].first()
        return table(runs.assign(rule_id=runs["arm"].map(rule_of)))

    @dg.asset(**presentation("validation", KINDS, NOISE_COLUMNS))
    def noise_floor(validation_runs: pd.DataFrame) -> dg.Output[pd.DataFrame]:
        """How far finetunes lie apart that do not differ in quality: one subset with several
        seeds, and several random subsets. What is smaller than this is no result."""
        method.require_all(validation_runs, arms)
        noise = method.noise_floor(validation_runs)
        return table(noise, {"noise": preview(noise, rows=len(noise))})

    @dg.asset(**presentation("validation", KINDS, VERDICT_COLUMNS))
    def selection_validation(validation_runs: pd.DataFrame) -> dg.Output[pd.DataFrame]:
        """Every strategy against random subsets of the same size: loss, difference in units of the
        noise floor, and better, worse or not distinguishable."""
        rule_id = method.require_all(validation_runs, arms)
        found = method.verdicts(validation_runs).assign(rule_id=rule_id)
        figure = verdict_figure(found, validation_runs)
        metadata: dict[str, Any] = {
            "rule": rule_id,
            "verdicts": preview(found, rows=len(found)),
            "figure": png_markdown(figure, "loss of each strategy against random subsets"),
        }
        return table(found, metadata)

    @dg.asset(**presentation("validation", KINDS, DECILE_COLUMNS))
    def rule_deciles(
        validation_runs: pd.DataFrame, selection_samples: pd.DataFrame
    ) -> dg.Output[pd.DataFrame]:
        """Does the loss fall as the rule's value falls, over equal slices of the unseen pool?"""
        keys = [key for key, arm in arms.items() if arm.kind == "decile"]
        means = selection_samples.groupby("arm")["predicted_log_loss"].mean()
        rule_id = method.require_all(validation_runs, arms)
        found = method.deciles(validation_runs, means.loc[keys].to_numpy()).assign(rule_id=rule_id)
        metadata: dict[str, Any] = {
            "rule": rule_id,
            "deciles": preview(found, rows=len(found)),
            "spearman": float(found["spearman"].iloc[0]),
            "figure": png_markdown(decile_figure(found), "loss over deciles of the rule"),
        }
        return table(found, metadata)

    assets = [validation_runs, noise_floor, selection_validation]
    assets += [rule_deciles] if settings.deciles else []
    checks = [parts_agree_check(experiment, "validation_runs"), one_rule_check()]
    room = dg.Definitions(assets=assets, asset_checks=checks)
    return dg.Definitions.merge(definitions_of(experiment), room)
