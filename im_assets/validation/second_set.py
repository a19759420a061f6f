"""The second evaluation set: are selections better on instructions of another kind, too?

A rule is fitted on losses on one kind of instruction, and what it selects is compared on the same
kind, held out or not. The arms' adapters, which are there, are measured on a set of another kind as
well; nothing is fitted on it. Verdicts are those of the first set, by the same function.
"""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.presentation import presentation, preview, table
from im_assets.common.progress import Progress
from im_assets.experiments.assets.trials import BASE, CUTS, FORWARD, LOSSES, measured_losses
from im_assets.experiments.evaluation import (
    CODE_VERSION,
    evaluation_fingerprint,
    evaluation_rows,
)
from im_assets.experiments.experiment import Experiment, some
from im_assets.experiments.lineage import LineageError
from im_assets.experiments.measures import measure_of
from im_assets.experiments.points import Parts
from im_assets.rule.target import PAPER
from im_assets.validation import verdicts as method
from im_assets.validation.arms import BASE as BASE_ARM
from im_assets.validation.arms import Arm
from im_assets.validation.figures import verdict_figure
from im_assets.validation.instructions import instruction_groups, without_each
from im_assets.validation.registering import VERSIONS
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import EvaluationSettings, Study
from im_resources.warehouse import Warehouse

SECOND = "second_eval_set"
COLUMNS = {
    "strategy": ("text", "Arm of the validation"),
    "size": ("bigint", "Examples finetuned on"),
    "against": (
        "text",
        "What it is compared with: random or tokens; null: of a reference",
    ),
    "finetunes": ("bigint", "Finetunes of this arm"),
    "loss": ("double", "Mean evaluation loss on the second set"),
    "loss_low": ("double", "Lower end of its 95 % interval"),
    "loss_high": ("double", "Upper end"),
    **method.DIFFERENCE_COLUMNS,
    "instructions": ("bigint", "Instructions of the second set that they were measured on"),
    "evaluation_id": ("text", "Fingerprint of the second set, its cuts and prompt"),
    "analysis_id": ("text", "Hash of the analysis, as in registered_analysis"),
}


def runs_on(
    losses: pd.DataFrame,
    runs: pd.DataFrame,
    evaluation_id: str,
    experiment: Experiment,
    settings: EvaluationSettings,
) -> pd.DataFrame:
    """The validation's runs with their losses on the second set in place of what was measured, and
    those without each group of its instructions.

    Args:
        losses: of each arm's finetune, one row a reference output.
        runs: as ``validation_runs`` holds them.
        evaluation_id: of the second set as it is now.
        experiment: the validation.

    The base is left out: it is not measured on the second set.

    Raises LineageError when the losses lack a run, or are of other finetunes or another set.
    """
    runs = runs[runs["strategy"] != BASE_ARM]
    known = losses.groupby("arm").agg(
        trial_id=("trial_id", "first"), evaluation_id=("evaluation_id", "first")
    )
    mine = known.reindex(runs["arm"])
    other = (mine["trial_id"].to_numpy() != runs["trial_id"].to_numpy()) | (
        mine["evaluation_id"].to_numpy() != evaluation_id
    )
    if other.any():
        arms = runs["arm"][other].tolist()
        raise LineageError(
            f"second_losses lacks {len(arms)} of {len(runs)} arms, or has them of other finetunes "
            f"or of another set ({some(arms)}); materialize second_losses for them"
        )
    measure, nothing = measure_of("loss", settings, "data.second_evaluation"), pd.DataFrame()
    parts = Parts(experiment, nothing, nothing, losses, nothing)
    kept = without_each(parts, measure, instruction_groups(parts, measure))
    found = runs.assign(loss=runs["arm"].map(parts.measured(measure)))
    found["loss_without"] = [kept.get(arm, ()) for arm in runs["arm"]]
    return found


def second_assets(
    experiment: Experiment, arms: dict[str, Arm], tokens_of: str | None
) -> list[dg.AssetsDefinition]:
    """The assets ``second_losses`` and ``second_validation``.

    Args:
        experiment: the validation.
        arms: its arms by partition key.
        tokens_of: as ``verdicts`` takes it.
    """

    @dg.asset(
        partitions_def=experiment.partitions,
        ins={"trained": dg.AssetIn(experiment.adapters)},
        deps=list(experiment.before),
        **presentation(
            "validation",
            columns={experiment.column: ("text", "Partition key"), **LOSSES},
            code_version=str(CODE_VERSION),
            reads=(*CUTS, *BASE),
            partition_column=experiment.column,
            **FORWARD,
        ),
    )
    def second_losses(
        context: dg.AssetExecutionContext,
        trained: pd.DataFrame,
        second_eval_set: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        """The loss of the model finetuned on each selection, on every reference output of the
        second evaluation set."""
        rows = evaluation_rows(second_eval_set, study.evaluation)
        progress = Progress(context, "evaluating", len(trained), experiment.noun)
        made, _ = measured_losses(
            trained, rows, experiment.column, study, gpu, adapters, warehouse, progress
        )
        version = str(made[0]["version"].iloc[0])
        return table(pd.concat(made, ignore_index=True), progress.rates, version)

    @dg.asset(
        **presentation(
            "validation",
            {"python", "duckdb"},
            COLUMNS,
            code_version=VERSIONS["second_validation"],
            reads=("evaluation.weighting",),
        )
    )
    def second_validation(
        second_losses: pd.DataFrame,
        second_eval_set: pd.DataFrame,
        validation_runs: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> dg.Output[pd.DataFrame]:
        """Every strategy against random subsets of the same size, on the second evaluation set:
        whether what is better on the first is so on instructions of another kind."""
        rule_id = method.require_all(validation_runs, arms)
        rows = evaluation_rows(second_eval_set, study.evaluation)
        evaluation_id = evaluation_fingerprint(rows, study)
        runs = runs_on(second_losses, validation_runs, evaluation_id, experiment, study.evaluation)
        found = method.verdicts(runs, PAPER, tokens_of).assign(
            rule_id=rule_id,
            instructions=rows["eval_id"].nunique(),
            evaluation_id=evaluation_id,
            analysis_id=runs["analysis_id"].iloc[0],
        )
        figure = verdict_figure(found, runs, PAPER)
        metadata: dict[str, Any] = {
            "measured on": f"{rows['eval_id'].nunique()} instructions of the second set",
            "verdicts": preview(found, rows=len(found)),
            "figure": png_markdown(figure, "Loss of each strategy against random subsets"),
        }
        return table(found, metadata)

    return [second_losses, second_validation]
