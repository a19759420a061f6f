"""The rounds as experiments: in each, sets of candidates that its rule and its rivals selected.

A rule that is fitted on random mixtures is asked about selections, which are like none of them. So
its selections are finetuned on and measured, and the next rule is fitted on these too. Each round
has assets of its own: one that led through others to another partition of itself would be a circle.
Its gate is its rule, which says whether the round is made.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from im_assets.experiments.experiment import Drawing, Experiment
from im_assets.experiments.measures import rows_read
from im_assets.experiments.points import values_fingerprint
from im_assets.rule.document import load_rule
from im_assets.rule.model import Rule
from im_assets.rule.ready import set_size
from im_assets.rule.target import Target
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import chosen
from im_assets.selection.choosing import choose
from im_assets.selection.pool import Pool, is_plugin, pool_indicators, pool_with, read_by_strategies
from im_assets.selection.registry import contents_of
from im_assets.selection.selecting import SelectionError
from im_assets.validation.arms import RANDOM, Arm, cut
from im_resources.study import MiningSettings, Study

POOL, SCORES = "candidate_datasets", "example_scores"


def rule_name(number: int) -> str:
    """The asset with the rule of a round, the first being 1."""
    return f"round_{number}_rule"


def settings_of(study: Study) -> MiningSettings:
    """The study's settings of its rounds."""
    assert study.mining is not None
    return study.mining


def arms_of(study: Study, number: int) -> dict[str, Arm]:
    """The finetunes of a round by partition key, strategies by name.

    No two of all rounds share a seed. Where a finetune's seed moves its loss, sets of one seed
    would be off together, and the errors of a round tell less than they seem to. And what is
    selected again is finetuned again: it is no copy of a point that the rule was fitted on.
    """
    settings = settings_of(study)
    names, count = sorted(settings.strategies), settings.seeds
    first = (number - 1) * len(names) * count
    arms = [
        Arm("strategy", name, study.mixtures.size, first + place * count + finetune)
        for place, name in enumerate(names)
        for finetune in range(count)
    ]
    return {arm.key: arm for arm in arms}


def round_experiments(study: Study) -> list[Experiment]:
    """All rounds of the study, in order; none where the profile has none."""
    if study.mining is None:
        return []
    return [round_experiment(study, number + 1) for number in range(study.mining.rounds)]


def round_experiment(study: Study, number: int) -> Experiment:
    """One round, the first being 1."""
    return Experiment(
        rows=rows_read(study),
        name=f"round_{number}",
        noun=f"sets of round {number}",
        pool=POOL,
        scores=SCORES,
        keys=tuple(arms_of(study, number)),
        column="arm",
        draw=lambda keys, drawing: draw(number, keys, drawing),
        made_from=(POOL, SCORES, rule_name(number)),
        gate=rule_name(number),
        description=f"What is finetuned on in round {number}: the candidates that each strategy "
        "selects from parts of the pool, by the rule of this round. Nothing, where the rounds "
        "stopped before.",
        columns={
            Target.of(study).predicted_column: ("double", "The rule's value for this example"),
            "rule_id": ("text", "Fingerprint of the rule that it was drawn by"),
        },
        reads=(
            "mining.strategies",
            "mining.seeds",
            "selection.max_share",
            "selection.stratify",
            "selection.near_duplicate_similarity",
            "mixtures.size",
            "scoring.indicators",
        ),
        content=lambda study: contents_of(*settings_of(study).strategies.values()),
        group="rounds",
        texts=any(map(is_plugin, settings_of(study).strategies.values())),
        job=f"round_{number}",
    )


def draw(number: int, keys: Sequence[str], drawing: Drawing) -> Iterator[tuple[str, pd.DataFrame]]:
    """The selection of each arm of a round, each finetune's from a part of the pool of its own.

    The profile's limits (quotas, near duplicates) hold for every strategy but ``random``. Every
    round cuts the pool anew, so that a rule which stayed the same has other candidates to select.

    Raises SelectionError when a part is smaller than a set, or a strategy finds too few.
    """
    study, settings = drawing.study, settings_of(drawing.study)
    arms, pool = arms_of(study, number), candidate_pool(number, drawing)
    named = ("mining.seeds", "mixtures.size")
    parts = cut(pool, settings.seeds, study.mixtures.size, named, seed=number)
    predicted = pool.rule.predict_examples(pool.indicators)
    for key in keys:
        arm = arms[key]
        strategy, part = settings.strategies[arm.name], parts[arm.seed % settings.seeds]
        limits = None if arm.name == RANDOM else study.selection
        places = part.positions[choose(strategy, part.pool, arm.size, seed=0, limits=limits)]
        members = pool.examples.iloc[places][["example_id"]].copy()
        members[pool.rule.predicts.predicted_column] = predicted[places]
        yield key, members.assign(rule_id=pool.rule.id)


def candidate_pool(number: int, drawing: Drawing) -> Pool:
    """All candidates as strategies see them, with the rule of a round.

    Raises SelectionError when the rule is of other versions of the indicators, or one of the
    candidates lacks a score.
    """
    study, models, warehouse = drawing.study, drawing.models, drawing.warehouse
    rule: Rule = load_rule(drawing.tables[rule_name(number)])
    indicators = chosen(study.scoring)
    if rule.values_id != values_fingerprint(indicators, study, models):
        raise SelectionError(
            f"{rule_name(number)} was fitted on indicators or measures of another version than the "
            f"profile's; materialize {rule_name(number)} first"
        )
    examples, scores = drawing.tables[POOL], drawing.tables[SCORES]
    ids = examples["example_id"].tolist()
    found = pool_indicators(
        ids,
        scores,
        study,
        lambda: embeddings_of(ids, models, warehouse),
        set_size(rule, study),
        {indicator.name: indicator.fingerprint(models) for indicator in indicators},
        read_by_strategies(rule, *settings_of(study).strategies.values()),
    )
    return pool_with(examples, POOL, found, rule, drawing)
