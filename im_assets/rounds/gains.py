"""Whether what a round's rule selects is better than random sets of the same candidates."""

import pandas as pd

from im_assets.common.numbers import finite
from im_assets.experiments.holdout import Part
from im_assets.experiments.measures import Measure
from im_assets.rounds.errors import Estimate
from im_assets.rounds.experiment import arms_of
from im_assets.rounds.measured import Round
from im_assets.rule.target import Target, target_measure
from im_assets.validation.arms import RANDOM, RULE
from im_assets.validation.instructions import instruction_groups, without_each
from im_assets.validation.verdicts import verdicts
from im_resources.study import Study


def less_random(one: Round, part: Part, study: Study) -> Estimate | None:
    """The mean measure (loss) of the rule's sets less that of random ones, as the validation tells
    it: with an interval for new finetunes and new instructions.

    Args:
        part: the instructions that are reported on.

    Returns None where the round was stopped, or has no random sets.
    """
    runs = runs_of(one, part, study)
    if set(runs["strategy"]) != {RULE, RANDOM}:
        return None
    found = verdicts(runs, Target.of(study)).set_index("strategy").loc[RULE]
    value, low, high = (float(found[f"difference{end}"]) for end in ("", "_low", "_high"))
    return Estimate(value, finite(low), finite(high))


def runs_of(one: Round, part: Part, study: Study) -> pd.DataFrame:
    """The rule's and the random finetunes of a round, as ``verdicts`` takes them."""
    measure: Measure = target_measure(study)
    good = one.parts.on(part)
    values = good.measured(measure)
    kept = without_each(good, measure, instruction_groups(good, measure)) if values else {}
    rows = [
        ("strategy", arm.name, arm.size, arm.seed, values[key], kept.get(key, ()))
        for key, arm in arms_of(study, one.number).items()
        if key in values and arm.name in (RULE, RANDOM)
    ]
    names = ["kind", "strategy", "size", "seed", measure.name, f"{measure.name}_without"]
    return pd.DataFrame(rows, columns=names)
