"""The bins of single indicators as an experiment (paper, univariate analysis)."""

from collections.abc import Iterator, Sequence

import pandas as pd

from im_assets.experiments.experiment import Drawing, Experiment, bin_key
from im_assets.experiments.measures import rows_read
from im_assets.scoring.registry import IndicatorError, chosen
from im_assets.univariate.bins import draw_bins
from im_resources.study import Study, UnivariateSettings, did_you_mean


def univariate_experiment(study: Study) -> Experiment:
    """The bins of each indicator of the univariate study."""
    settings = study.univariate or UnivariateSettings()
    names = univariate_indicators(study)
    return Experiment(
        rows=rows_read(study),
        name="univariate",
        noun="bins",
        pool="candidate_datasets",
        scores="example_scores",
        keys=tuple(bin_key(name, i) for name in names for i in range(settings.bins)),
        column="bin",
        draw=draw,
        made_from=("example_scores",),
        description="The scored candidates sorted by one indicator, descending, cut into bins of "
        "equal size; a set of the mixtures' size drawn from each (paper, univariate analysis).",
        columns={
            "indicator": ("text", "Indicator that the pool was sorted by"),
            "number": ("bigint", "Bin, 0 holding the highest values"),
            "value": ("double", "The indicator of this example"),
        },
        reads=("univariate.bins", "univariate.size", "mixtures.size"),
        group="univariate",
    )


def draw(keys: Sequence[str], drawing: Drawing) -> Iterator[tuple[str, pd.DataFrame]]:
    """The bin of each key."""
    study, example_scores = drawing.study, drawing.tables["example_scores"]
    settings = study.univariate or UnivariateSettings()
    size, wanted = settings.size or study.mixtures.size, set(keys)
    for name in univariate_indicators(study):
        scores = example_scores[example_scores["indicator"] == name]
        scores = scores.astype({"example_id": object})  # not as categories
        values = scores.set_index("example_id")["value"]
        for number, members in enumerate(draw_bins(values, settings.bins, size, name)):
            key = bin_key(name, number)
            if key in wanted:
                drawn = members[["example_id", "value"]]
                yield key, drawn.assign(indicator=name, number=number)


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
