"""The random mixtures as an experiment: what the rule is fitted on.

They are a series: when the candidate pool has a new version, further seeds are drawn from it, and
those drawn before stay what they are.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from im_assets.candidates.versions import HISTORY, current_version, held_in, origin
from im_assets.experiments.experiment import Drawing, Experiment, seed_key, seed_of
from im_assets.experiments.measures import rows_read
from im_assets.mixtures.drawing import draw_mixtures
from im_resources.study import Study

SERIES = "mixture_seeds"


def mixture_experiment(study: Study) -> Experiment:
    """The random mixtures of the candidate sources, one a seed."""
    return Experiment(
        rows=rows_read(study),
        name="mixtures",
        noun="mixtures",
        pool="candidate_datasets",
        scores="example_scores",
        keys=tuple(map(seed_key, study.mixtures.seed_numbers)),
        series=SERIES,
        column="seed",
        draw=draw,
        origin=lambda drawing: origin(drawing.warehouse.read_table(HISTORY)),
        made_from=("candidate_datasets", SERIES),
        description="Random mixtures of the candidate sources: a random weight per source, then "
        "examples without replacement. The same seed gives the same mixture on any machine, from "
        "the version of the pool that it belongs to.",
        columns={
            "source": ("text", "Candidate source it was drawn from"),
            "share": ("double", "The source's random weight r_i / Σr (mixtures.shares)"),
            "pool_version": ("bigint", "The version of the pool that it was drawn from"),
        },
        # Added later: at its default, mixtures drawn before are what they were.
        reads=("mixtures.size", *["mixtures.shares"][: int(study.mixtures.shares != "uniform")]),
        names={
            "": "mixture",
            "samples": "mixed_samples",
            "adapters": "finetuned_adapters",
            "losses": "eval_losses",
        },
    )


def draw(keys: Sequence[str], drawing: Drawing) -> Iterator[tuple[str, pd.DataFrame]]:
    """The mixture of each key, from the version of the pool that its seed belongs to."""
    history = drawing.warehouse.read_table(HISTORY)
    series = drawing.tables[SERIES].set_index("seed")["version"]
    newest = current_version(history)
    versions = {key: int(series.get(key, newest)) for key in keys}
    pools = {version: held_in(history, version) for version in set(versions.values())}
    settings = drawing.study.mixtures
    drawn = {
        version: draw_mixtures(
            pool,
            [seed_of(k) for k, v in versions.items() if v == version],
            settings.size,
            settings.shares,
        )
        for version, pool in pools.items()
    }
    for key, version in versions.items():
        _, mixture = next(drawn[version])
        yield key, mixture[["example_id", "source", "share"]].assign(pool_version=version)
