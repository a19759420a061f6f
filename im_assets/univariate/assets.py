"""The univariate study: univariate_samples → _adapters → _losses → univariate_bins → _study."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.figures import png_markdown
from im_assets.common.presentation import presentation, preview
from im_assets.experiments.assets import adapters_asset, losses_asset
from im_assets.experiments.evaluation import overall_by
from im_assets.experiments.experiment import bin_key, univariate_experiment
from im_assets.scoring.registry import IndicatorError, chosen
from im_assets.univariate.bins import draw_bins
from im_assets.univariate.figures import univariate_figure
from im_assets.univariate.study import bin_table, univariate_correlations
from im_resources.study import Study, UnivariateSettings, did_you_mean

SAMPLE_COLUMNS = {
    "bin": ("text", "Partition key of the bin"),
    "position": ("bigint", "Place in the set, from 0"),
    "example_id": ("text", "Content hash of the example"),
    "indicator": ("text", "Indicator that the pool was sorted by"),
    "number": ("bigint", "Bin, 0 holding the highest values"),
    "value": ("double", "The indicator of this example"),
}
BIN_COLUMNS = {
    "indicator": ("text", "Indicator that the pool was sorted by"),
    "bin": ("bigint", "Bin, 0 holding the highest values"),
    "examples": ("bigint", "Examples drawn from the bin and finetuned on"),
    "mean": ("double", "Mean of the indicator over these examples"),
    "loss": ("double", "Evaluation loss of the model finetuned on them"),
    "log_loss": ("double", "Its logarithm"),
}
STUDY_COLUMNS = {
    "indicator": ("text", "Indicator"),
    "bins": ("bigint", "Points of the correlation"),
    "pearson": ("double", "Pearson's correlation of bin mean and log loss"),
    "pearson_low": ("double", "Lower end of its 95 % bootstrap interval"),
    "pearson_high": ("double", "Upper end"),
    "spearman": ("double", "Spearman's correlation of bin mean and log loss"),
    "spearman_low": ("double", "Lower end of its 95 % bootstrap interval; null: not defined"),
    "spearman_high": ("double", "Upper end"),
    "paper_sign": ("bigint", "1: rises with the loss in the paper, -1: falls, null: not named"),
    "sign": ("bigint", "1: rises with the loss here, -1: falls, null: not clear"),
    "agrees": ("boolean", "Whether the sign is the paper's; null where it is not clear"),
    "verdict": ("text", "Where the sign stands: as_in_paper, against_paper, no_paper_sign, …"),
    "note": ("text", "The same as a sentence"),
}


def univariate_indicators(study: Study) -> list[str]:
    """The indicators of the univariate study: those of the profile that one example has.

    Raises IndicatorError when the profile names one that is not computed, or a property of a set.
    """
    per_example = [i.name for i in chosen(study.scoring) if i.backend.scope == "example"]
    wanted = (study.univariate or UnivariateSettings()).indicators or per_example
    for name in wanted:
        if name not in per_example:
            raise IndicatorError(
                f"univariate.indicators: {name!r} is not an indicator that a single example of "
                f"this study has{did_you_mean(name, per_example)}; known: {', '.join(per_example)}"
            )
    return list(wanted)


def univariate_assets(study: Study) -> list[dg.AssetsDefinition]:
    """The assets of this room; none when the profile has no univariate study."""
    if study.univariate is None:
        return []
    names = univariate_indicators(study)
    experiment = univariate_experiment(study, names)

    @dg.asset(
        partitions_def=experiment.partitions,
        **presentation("univariate", {"python", "duckdb"}, SAMPLE_COLUMNS, partition_column="bin"),
    )
    def univariate_samples(
        context: dg.AssetExecutionContext,
        example_scores: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> pd.DataFrame:
        """The scored candidates sorted by one indicator, descending, cut into bins of equal size;
        a set of the mixtures' size drawn from each (paper, univariate analysis)."""
        settings = study.univariate or UnivariateSettings()
        size, wanted, drawn = settings.size or study.mixtures.size, set(context.partition_keys), []
        for name in names:
            scores = example_scores[example_scores["indicator"] == name]
            values = scores.set_index("example_id")["value"]
            for number, members in enumerate(draw_bins(values, settings.bins, size, name)):
                key = bin_key(name, number)
                if key in wanted:
                    drawn.append(members.assign(bin=key, indicator=name, number=number))
        return pd.concat(drawn, ignore_index=True)

    @dg.asset(**presentation("univariate", {"python", "duckdb"}, BIN_COLUMNS))
    def univariate_bins(
        univariate_samples: pd.DataFrame,
        univariate_losses: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> dg.Output[pd.DataFrame]:
        """One row a bin: the mean of its indicator, and the loss of the model finetuned on it."""
        losses = overall_by(univariate_losses, "bin", study.evaluation.weighting)
        table = bin_table(univariate_samples, losses, experiment.keys)
        return dg.Output(table, metadata={"bins": preview(table, rows=100)})

    @dg.asset(**presentation("univariate", {"python", "duckdb"}, STUDY_COLUMNS))
    def univariate_study(
        univariate_bins: pd.DataFrame,
        indicator_table: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> dg.Output[pd.DataFrame]:
        """How each indicator goes with the loss, one at a time: correlations over the bins with
        bootstrap intervals, and their sign beside the paper's."""
        settings = study.univariate or UnivariateSettings()
        table = univariate_correlations(univariate_bins, settings.bootstrap)
        figure = univariate_figure(univariate_bins, indicator_table)
        metadata: dict[str, Any] = {
            "correlations": preview(table, rows=len(table)),
            "figure": png_markdown(figure, "indicator against log loss, mixtures and bins"),
        }
        return dg.Output(table, metadata=metadata)

    return [
        univariate_samples,
        adapters_asset(experiment),
        losses_asset(experiment),
        univariate_bins,
        univariate_study,
    ]
