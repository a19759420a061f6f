"""The univariate study: univariate_samples → _adapters → _losses → univariate_bins → _study."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.presentation import presentation, preview, table
from im_assets.experiments.assets import definitions_of
from im_assets.experiments.checks import parts_agree_check
from im_assets.experiments.holdout import MEASURED, split_of
from im_assets.experiments.lineage import LineageError
from im_assets.experiments.points import Parts
from im_assets.rule.ready import transform_of
from im_assets.rule.target import Target, target_measure
from im_assets.univariate.experiment import univariate_experiment
from im_assets.univariate.figures import univariate_figure
from im_assets.univariate.study import bin_table, univariate_correlations
from im_resources.gpu import GpuResource
from im_resources.study import Study, UnivariateSettings

BIN_COLUMNS = {
    "indicator": ("text", "Indicator that the pool was sorted by"),
    "bin": ("bigint", "Bin, 0 holding the highest values"),
    "examples": ("bigint", "Examples drawn from the bin and finetuned on"),
    "mean": ("double", "Mean of the indicator over these examples"),
    "scaled_mean": ("double", "The same on the scale of the rule's points (rule.transform)"),
}
STUDY_COLUMNS = {
    "indicator": ("text", "Indicator"),
    "bins": ("bigint", "Points of the correlation"),
    "pearson": ("double", "Pearson's correlation of bin mean and target (log loss)"),
    "pearson_low": ("double", "Lower end of its 95 % bootstrap interval"),
    "pearson_high": ("double", "Upper end"),
    "spearman": ("double", "Spearman's correlation of bin mean and target (log loss)"),
    "spearman_low": ("double", "Lower end of its 95 % bootstrap interval; null: not defined"),
    "spearman_high": ("double", "Upper end"),
    "paper_sign": ("bigint", "1: rises with the loss in the paper, -1: falls, null: not named"),
    "sign": ("bigint", "1: rises with the target here, -1: falls, null: not clear"),
    "agrees": ("boolean", "Whether the sign is the paper's; null where it is not clear"),
    "verdict": ("text", "Where the sign stands: as_in_paper, against_paper, no_paper_sign, …"),
    "note": ("text", "The same as a sentence"),
}


def definitions(study: Study) -> dg.Definitions:
    """The assets and checks of this room; none when the profile has no univariate study."""
    if study.univariate is None:
        return dg.Definitions()
    experiment, target = univariate_experiment(study), Target.of(study)
    columns = {**BIN_COLUMNS, **target.columns("the model finetuned on them"), **MEASURED}

    @dg.asset(
        ins={name: dg.AssetIn(name) for name in Parts.names(experiment)},
        **presentation(
            "univariate",
            {"python", "duckdb"},
            columns,
            code_version="2",
            reads=(
                "evaluation.weighting",
                "evaluation.holdout",
                "rule.target",
                "rule.source",
                "rule.transform",
            ),
        ),
    )
    def univariate_bins(
        study: dg.ResourceParam[Study], gpu: GpuResource, **tables: pd.DataFrame
    ) -> dg.Output[pd.DataFrame]:
        """One row a bin: the mean of its indicator, and the loss (or other target) of the model
        finetuned on it."""
        parts = Parts.of(experiment, tables)
        # As the mixtures, with which they are drawn and may be fitted on.
        part = split_of(tables["eval_set"], study.evaluation).fitting
        good = parts.without(parts.faults(tables["eval_set"], study, gpu)).on(part)
        measure = target_measure(study)
        values, counts = good.measured(measure), good.counted(measure)
        bins = bin_table(good.samples, values, target, counts, transform_of(study))
        bins = bins.assign(**good.measured_columns(study))
        return table(bins, {"measured on": part.words, "bins": preview(bins, rows=100)})

    @dg.asset(
        **presentation(
            "univariate",
            {"python", "duckdb"},
            STUDY_COLUMNS,
            reads=("univariate.bootstrap", "rule.target"),
        )
    )
    def univariate_study(
        univariate_bins: pd.DataFrame,
        indicator_table: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> dg.Output[pd.DataFrame]:
        """How each indicator goes with the loss, one at a time: correlations over the bins with
        bootstrap intervals, and their sign beside the paper's."""
        settings = study.univariate or UnivariateSettings()
        missing = len(experiment.keys) - len(univariate_bins)
        if missing:
            raise LineageError(
                f"{missing} of {len(experiment.keys)} bins are not in univariate_bins: see its "
                "check univariate_parts_agree for what to materialize"
            )
        found = univariate_correlations(univariate_bins, settings.bootstrap, target)
        mixtures = indicator_table[indicator_table["experiment"] == "mixtures"]
        figure = univariate_figure(univariate_bins, mixtures, target)
        metadata: dict[str, Any] = {
            "correlations": preview(found, rows=len(found)),
            "figure": png_markdown(figure, f"indicator against {target.label}, mixtures and bins"),
        }
        return table(found, metadata)

    assets = dg.Definitions(
        assets=[univariate_bins, univariate_study],
        asset_checks=[parts_agree_check(experiment, "univariate_bins")],
    )
    return dg.Definitions.merge(definitions_of(experiment, study), assets)
