"""The validation of selections: selection_samples → _adapters → _losses → the verdicts."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.figures import png_markdown
from im_assets.common.presentation import presentation, preview
from im_assets.experiments.assets import adapters_asset, losses_asset
from im_assets.experiments.evaluation import overall_by
from im_assets.experiments.experiment import validation_experiment
from im_assets.selection.pool import pool_of
from im_assets.validation import verdicts as method
from im_assets.validation.arms import arms_of, members
from im_assets.validation.figures import decile_figure, verdict_figure
from im_resources.gpu import GpuResource
from im_resources.study import Study, ValidationSettings
from im_resources.warehouse import Warehouse

KINDS = {"python", "duckdb"}
SAMPLE_COLUMNS = {
    "arm": ("text", "Partition key of the finetune"),
    "position": ("bigint", "Place in the selection, from 0"),
    "example_id": ("text", "Content hash of the example"),
    "predicted_log_loss": ("double", "The rule's value for this example"),
}
RUN_COLUMNS = {
    "kind": ("text", "strategy, noise (a random subset again) or decile"),
    "strategy": ("text", "Arm of the validation"),
    "size": ("bigint", "Examples finetuned on"),
    "seed": ("bigint", "Seed of the finetune, and of a random strategy's draw"),
    "slice": ("bigint", "Slice of the pool by the rule's value, from 0; of deciles only"),
    "loss": ("double", "Evaluation loss"),
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
}
DECILE_COLUMNS = {
    "decile": ("bigint", "Slice of the pool, 1 = lowest rule values"),
    "predicted": ("double", "Mean predicted log loss of the examples finetuned on"),
    "loss": ("double", "Evaluation loss"),
    "log_loss": ("double", "Its logarithm"),
    "spearman": ("double", "Of predicted and measured log loss over all slices"),
    "spearman_low": ("double", "Lower end of its 95 % bootstrap interval"),
    "spearman_high": ("double", "Upper end"),
}


def validation_assets(study: Study) -> list[dg.AssetsDefinition]:
    """The assets of this room; none when the profile has no validation."""
    if study.validation is None:
        return []
    settings: ValidationSettings = study.validation
    arms = arms_of(settings)
    experiment = validation_experiment(arms)

    @dg.asset(
        partitions_def=experiment.partitions,
        **presentation("validation", KINDS, SAMPLE_COLUMNS, partition_column="arm"),
    )
    def selection_samples(
        context: dg.AssetExecutionContext,
        dolly_dataset: pd.DataFrame,
        dolly_scores: pd.DataFrame,
        quality_rule: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> pd.DataFrame:
        """What each arm of the validation is finetuned on: the choice of every strategy, random
        subsets, and slices of the unseen pool by the rule's value."""
        pool = pool_of(dolly_dataset, dolly_scores, quality_rule, study, gpu, warehouse)
        predicted = pool.rule.predict(pool.indicators)
        drawn = []
        for key in context.partition_keys:
            places = members(arms[key], pool, settings, study.selection)
            frame = pool.examples.iloc[places][["example_id"]].reset_index(drop=True)
            frame.insert(0, "position", range(len(frame)))
            drawn.append(frame.assign(arm=key, predicted_log_loss=predicted[places]))
        return pd.concat(drawn, ignore_index=True)

    @dg.asset(**presentation("validation", KINDS, RUN_COLUMNS))
    def validation_runs(
        selection_losses: pd.DataFrame, study: dg.ResourceParam[Study]
    ) -> pd.DataFrame:
        """One row a finetune of the validation, with its evaluation loss."""
        losses = overall_by(selection_losses, "arm", study.evaluation.weighting)
        return method.validation_runs(losses, arms)

    @dg.asset(**presentation("validation", KINDS, NOISE_COLUMNS))
    def noise_floor(validation_runs: pd.DataFrame) -> dg.Output[pd.DataFrame]:
        """How far finetunes lie apart that do not differ in quality: one subset with several
        seeds, and several random subsets. What is smaller than this is no result."""
        table = method.noise_floor(validation_runs)
        return dg.Output(table, metadata={"noise": preview(table, rows=len(table))})

    @dg.asset(**presentation("validation", KINDS, VERDICT_COLUMNS))
    def selection_validation(
        validation_runs: pd.DataFrame, noise_floor: pd.DataFrame
    ) -> dg.Output[pd.DataFrame]:
        """Every strategy against random subsets of the same size: loss, difference in units of the
        noise floor, and better, worse or not distinguishable."""
        table = method.verdicts(validation_runs)
        figure = verdict_figure(table, noise_floor)
        metadata: dict[str, Any] = {
            "verdicts": preview(table, rows=len(table)),
            "figure": png_markdown(figure, "loss of each strategy against random subsets"),
        }
        return dg.Output(table, metadata=metadata)

    @dg.asset(**presentation("validation", KINDS, DECILE_COLUMNS))
    def rule_deciles(
        validation_runs: pd.DataFrame, selection_samples: pd.DataFrame
    ) -> dg.Output[pd.DataFrame]:
        """Does the loss fall as the rule's value falls, over equal slices of the unseen pool?"""
        keys = [key for key, arm in arms.items() if arm.kind == "decile"]
        means = selection_samples.groupby("arm")["predicted_log_loss"].mean()
        table = method.deciles(validation_runs, means.loc[keys].to_numpy())
        metadata: dict[str, Any] = {
            "deciles": preview(table, rows=len(table)),
            "spearman": float(table["spearman"].iloc[0]),
            "figure": png_markdown(decile_figure(table), "loss over deciles of the rule"),
        }
        return dg.Output(table, metadata=metadata)

    assets = [
        selection_samples,
        adapters_asset(experiment),
        losses_asset(experiment),
        validation_runs,
        noise_floor,
        selection_validation,
    ]
    return [*assets, rule_deciles] if settings.deciles else assets
