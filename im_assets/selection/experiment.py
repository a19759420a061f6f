"""The sizes of a searched selection as an experiment: one finetune a size."""

from collections.abc import Iterator, Sequence

import pandas as pd

from im_assets.experiments.experiment import Drawing, Experiment, seed_key
from im_assets.experiments.measures import rows_read
from im_assets.selection.choosing import choose
from im_assets.selection.pool import is_plugin, pool_of
from im_assets.selection.registry import contents_of
from im_assets.selection.size_search import measured_sizes
from im_resources.study import Study


def size_experiment(study: Study) -> Experiment:
    """The strategy's selections of every size that is measured.

    All have seed 0, so that they differ in their data alone.
    """
    pool = study.pools[0]
    return Experiment(
        rows=rows_read(study),
        name="sizes",
        noun="sizes",
        pool=f"{pool}_dataset",
        scores=f"{pool}_scores",
        keys=tuple(map(size_key, measured_sizes(study.selection.search))),
        column="size_key",
        draw=draw,
        made_from=(f"{pool}_dataset", f"{pool}_indicators", "quality_rule"),
        description="The strategy's selection of each size that is finetuned on, to find how much "
        "to select (paper v2).",
        version="2",
        columns={"rule_id": ("text", "Fingerprint of the rule at the time of the draw")},
        reads=(
            "selection.strategy",
            "selection.options",
            "selection.max_share",
            "selection.stratify",
            "selection.near_duplicate_similarity",
            "mixtures.size",
            "scoring.indicators",
        ),
        content=lambda study: contents_of(study.selection),
        group="sizes",
        names={"": "size"},
        texts=is_plugin(study.selection),
    )


def size_key(size: int) -> str:
    """The partition key of a size: 512 → ``size-512-seed-000``."""
    return f"size-{size}-{seed_key(0)}"


def draw(keys: Sequence[str], drawing: Drawing) -> Iterator[tuple[str, pd.DataFrame]]:
    """The selection of each size."""
    settings = drawing.study.selection
    pool = pool_of(drawing.study.pools[0], drawing)
    for size in measured_sizes(settings.search):
        if size_key(size) in keys:
            chosen = pool.examples.iloc[choose(settings, pool, size, seed=0)][["example_id"]]
            yield size_key(size), chosen.assign(rule_id=pool.rule.id)
