"""What a measure would be on other instructions: its values without each of some groups of them.

The evaluation's instructions are a sample, and a difference between arms that holds for them need
not hold for new ones. From the values without each group the verdict has its jackknife variance
(see components), by the measure's own function, whatever that is.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from im_assets.common.digests import digest
from im_assets.experiments.measures import Measure
from im_assets.experiments.points import Parts

GROUPS = 20


def instruction_groups(parts: Parts, measure: Measure, groups: int = GROUPS) -> list[list[str]]:
    """The instructions that count for the measure in every trial, in equal groups (by hash, sizes
    differ by at most one); one each where they are fewer. None of a single instruction."""
    rows = parts.rows(measure.reads)
    for name in measure.needs:
        rows = rows[rows[name].fillna("") != ""]
    if measure.reads == "verdicts":
        rows = rows[rows.groupby("eval_id")["outcome"].transform(lambda o: o.notna().all())]
    ids = sorted(rows["eval_id"].unique(), key=lambda name: digest(0, f"group:{name}"))
    if len(ids) < 2:
        return []
    return [list(ids[start::groups]) for start in range(min(groups, len(ids)))]


def base_run(
    rows: pd.DataFrame, measure: Measure, groups: Sequence[Sequence[str]]
) -> tuple[float, tuple[float, ...]]:
    """The measure of the base model, and without each of the groups, [groups].

    Args:
        rows: of the base model, as the measure reads them; judged against itself, it wins as often
            as it loses.
    """
    if measure.reads == "verdicts":
        return 0.5, (0.5,) * len(groups)
    kept = [rows[~rows["eval_id"].isin(list(group))] for group in groups]
    return measure.of(rows), tuple(measure.of(part) for part in kept)


def without_each(
    parts: Parts, measure: Measure, groups: Sequence[Sequence[str]]
) -> Mapping[str, tuple[float, ...]]:
    """The measure of each partition without each of the groups, [groups], by partition key."""
    every = parts.rows(measure.reads)["eval_id"].unique()
    values = [parts.only(every[~np.isin(every, list(group))]).measured(measure) for group in groups]
    # Tuples, since the version of a table is a hash of its values.
    return {key: tuple(value[key] for value in values) for key in (values[0] if values else {})}
