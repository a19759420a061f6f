"""The mixtures as an experiment: what the rule is fitted on.

They are a series: when the candidate pool has a new version, further seeds are drawn from it, and
those drawn before stay what they are.
"""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from im_assets.candidates.versions import HISTORY, current_version, held_in, origin
from im_assets.experiments.experiment import Drawing, Experiment, seed_key, seed_of
from im_assets.experiments.measures import rows_read
from im_assets.mixtures.drawing import draw_mixtures
from im_assets.mixtures.leaning import (
    drawn_by,
    kept_percentiles,
    scored_pool,
    tilt_of,
    tilted_indicators,
)
from im_assets.mixtures.tilting import VERSION
from im_assets.rule.ready import transform_of
from im_resources.study import Study, fingerprint

SERIES = "mixture_seeds"


def mixture_experiment(study: Study) -> Experiment:
    """The mixtures of the candidate sources, one a seed."""
    settings = study.mixtures
    tilted = settings.kind != "random"
    keys = tuple(map(seed_key, settings.seed_numbers))
    return Experiment(
        rows=rows_read(study),
        name="mixtures",
        noun="mixtures",
        pool="candidate_datasets",
        scores="example_scores",
        keys=keys,
        series=SERIES,
        column="seed",
        draw=draw,
        origin=lambda drawing: _origin(keys, drawing),
        # Tilted ones are drawn by scores: by those of each version's own percentiles.
        made_from=("candidate_datasets", SERIES, *(["example_scores"] if tilted else [])),
        description=f"{settings.kind.capitalize()} mixtures of the candidate sources: a random "
        "weight per source, then examples without replacement, all equally likely or leaning to "
        "one end of the indicators (mixtures.kind). The same seed gives the same mixture on any "
        "machine, from the version of the pool that it belongs to.",
        columns={
            "source": ("text", "Candidate source it was drawn from"),
            "share": ("double", "The source's random weight r_i / Σr (mixtures.shares)"),
            "pool_version": ("bigint", "The version of the pool that it was drawn from"),
        },
        # Added later: at their defaults, mixtures drawn before are what they were.
        reads=(
            "mixtures.size",
            *(["mixtures.shares"] if settings.shares != "uniform" else []),
            *(f"mixtures.{name}" for name in ("kind", "strength") if tilted),
        ),
        content=drawn_by,
        names={
            "": "mixture",
            "samples": "mixed_samples",
            "adapters": "finetuned_adapters",
            "losses": "eval_losses",
        },
    )


def draw(keys: Sequence[str], drawing: Drawing) -> Iterator[tuple[str, pd.DataFrame]]:
    """The mixture of each key, from the version of the pool that its seed belongs to.

    Raises LineageError when tilted mixtures lack scores.
    """
    history = drawing.warehouse.read_table(HISTORY)
    series = drawing.tables[SERIES].set_index("seed")
    newest = current_version(history)
    versions = {key: int(series["version"].get(key, newest)) for key in keys}
    # A series from before there were designs has no numbers: each seed is its own.
    known = series.get("number", pd.Series(dtype="int64"))
    numbers = {key: int(known.get(key, seed_of(key))) for key in keys}
    draw_from = _drawer(history, drawing)
    drawn = {
        version: draw_from(version, [numbers[k] for k, v in versions.items() if v == version])
        for version in set(versions.values())
    }
    for key, version in versions.items():
        _, mixture = next(drawn[version])
        yield key, mixture[["example_id", "source", "share"]].assign(pool_version=version)


def _drawer(
    history: pd.DataFrame, drawing: Drawing
) -> Callable[[int, Sequence[int]], Iterator[tuple[int, pd.DataFrame]]]:
    """What draws the mixtures with some numbers from a version of the pool."""
    study, settings = drawing.study, drawing.study.mixtures
    if settings.kind == "random":
        return lambda version, numbers: draw_mixtures(
            held_in(history, version), numbers, settings.size, settings.shares
        )
    scores, names = drawing.tables["example_scores"], tilted_indicators(study)
    kept = kept_percentiles(study, drawing.warehouse, history, scores, drawing.models)

    def tilted(version: int, numbers: Sequence[int]) -> Iterator[tuple[int, pd.DataFrame]]:
        of_version = kept[kept[VERSION] == version]
        pool = scored_pool(held_in(history, version), scores, of_version, transform_of(study))
        return draw_mixtures(
            pool.examples,
            numbers,
            settings.size,
            settings.shares,
            lambda number: pool.log_weights(tilt_of(number, names, settings)),
        )

    return tilted


def _origin(keys: Sequence[str], drawing: Drawing) -> str:
    """What the mixtures go back to: the pool's first version, and of a design, which were chosen
    for the profile's seeds."""
    first = origin(drawing.warehouse.read_table(HISTORY))
    if drawing.study.mixtures.kind != "designed":
        return first
    series = drawing.tables[SERIES].set_index("seed")["number"]
    return fingerprint(first, [int(series.get(key, seed_of(key))) for key in keys])
