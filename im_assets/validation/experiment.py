"""The validation's arms as an experiment: selections that are finetuned on."""

from collections.abc import Iterator, Sequence

import pandas as pd

from im_assets.experiments.experiment import Drawing, Experiment
from im_assets.experiments.measures import rows_read
from im_assets.rule.target import Target
from im_assets.selection.pool import is_plugin, pool_of
from im_assets.selection.registry import contents_of
from im_assets.validation.arms import TOKENS, arms_of, members, parts_of
from im_assets.validation.registering import TABLE as REGISTERED
from im_resources.study import Study, ValidationSettings

SELECTED = {
    "rule_id": ("text", "Fingerprint of the rule at the time of the draw"),
}


def validation_experiment(study: Study) -> Experiment:
    """The selections that are finetuned on to see whether they are worth it."""
    settings, pool = study.validation or ValidationSettings(), study.pools[0]
    # What an example's tokens depend on, where sets are drawn by them.
    by_tokens = TOKENS in settings.references
    tokens = ("validation.tokens_of", "models.base", "models.prompt", "models.max_length")
    return Experiment(
        rows=rows_read(study),
        name="validation",
        noun="selections",
        pool=f"{pool}_dataset",
        scores=f"{pool}_scores",
        keys=tuple(arms_of(settings, study.selection)),
        column="arm",
        draw=draw,
        made_from=(f"{pool}_dataset", f"{pool}_indicators", "quality_rule"),
        description="What each arm of the validation is finetuned on: the choice of every "
        "strategy from parts of the unseen pool, random subsets, and slices by the rule's value.",
        version="3",
        columns={
            Target.of(study).predicted_column: ("double", "The rule's value for this example"),
            **SELECTED,
        },
        reads=(
            "validation.strategies",
            "validation.seeds",
            "validation.deciles",
            "selection.max_share",
            "selection.stratify",
            "selection.near_duplicate_similarity",
            "mixtures.size",
            "scoring.indicators",
            *(tokens if by_tokens else ()),
        ),
        content=lambda study: (
            contents_of(*study.validation.strategies.values()) if study.validation else []
        ),
        group="validation",
        before=(REGISTERED,),
        names={"": "selection"},
        texts=any(map(is_plugin, settings.strategies.values())),
    )


def draw(keys: Sequence[str], drawing: Drawing) -> Iterator[tuple[str, pd.DataFrame]]:
    """The selection of each arm."""
    study = drawing.study
    settings = study.validation or ValidationSettings()
    arms, pool = arms_of(settings, study.selection), pool_of(study.pools[0], drawing)
    parts = parts_of(pool, settings)
    predicted = pool.rule.predict_examples(pool.indicators)
    for key in keys:
        places = members(arms[key], pool, parts, settings, study.selection)
        chosen = pool.examples.iloc[places][["example_id"]].copy()
        chosen[pool.rule.predicts.predicted_column] = predicted[places]
        yield key, chosen.assign(rule_id=pool.rule.id)
