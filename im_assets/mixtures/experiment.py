"""The random mixtures as an experiment: what the rule is fitted on."""

from collections.abc import Iterator, Sequence

import pandas as pd

from im_assets.experiments.experiment import Drawing, Experiment, seed_key, seed_of
from im_assets.experiments.measures import rows_read
from im_assets.mixtures.drawing import draw_mixture
from im_resources.study import Study


def mixture_experiment(study: Study) -> Experiment:
    """The random mixtures of the candidate sources, one a seed."""
    return Experiment(
        rows=rows_read(study),
        name="mixtures",
        noun="mixtures",
        pool="candidate_datasets",
        scores="example_scores",
        keys=tuple(map(seed_key, study.mixtures.seed_numbers)),
        column="seed",
        draw=draw,
        made_from=("candidate_datasets",),
        description="Random mixtures of the candidate sources: a random weight per source, then "
        "examples without replacement. The same seed gives the same mixture on any machine.",
        columns={
            "source": ("text", "Candidate source it was drawn from"),
            "share": ("double", "The source's random weight r_i / Σr"),
        },
        reads=("mixtures.size",),
        names={
            "": "mixture",
            "samples": "mixed_samples",
            "adapters": "finetuned_adapters",
            "losses": "eval_losses",
        },
    )


def draw(keys: Sequence[str], drawing: Drawing) -> Iterator[tuple[str, pd.DataFrame]]:
    """The mixture of each key."""
    candidates, size = drawing.tables["candidate_datasets"], drawing.study.mixtures.size
    for key in keys:
        mixture = draw_mixture(candidates, seed_of(key), size)
        yield key, mixture[["example_id", "source", "share"]]
