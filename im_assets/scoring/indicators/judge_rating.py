"""judge_rating: how good an example is by a judge, 1 to 5.

As AlpaGasus (arXiv 2307.08701) and DEITA (arXiv 2312.15685) have a strong model rate examples.

The judge is the profile's (``judge``): any endpoint, or the study's base model. What it is asked is
in ``im_assets/judging/rating.py``; docs/judge.md tells what it costs.
"""

from collections.abc import Collection
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from im_assets.candidates.tracing import Place
from im_assets.judging.asking import judge_of
from im_assets.judging.rating import HIGHEST, LOWEST, PROMPT_VERSION, Shown
from im_assets.judging.ratings import rate_all
from im_assets.scoring.batch import Models, ScoringBatch
from im_assets.scoring.cached import placed
from im_assets.scoring.registry import IndicatorError, indicator
from im_resources.study import fingerprint
from im_resources.warehouse import Warehouse

UNRATED = "unrated_examples"  # those that got the option's number, and why
FEW = 3  # that a message names

Unrated = Annotated[float, Field(ge=LOWEST, le=HIGHEST)] | None


def _told(
    example_ids: Collection[str], models: Models, warehouse: Warehouse, unrated: Unrated = None
) -> dict[str, float]:
    """How many of these examples count with the option's number instead of a rating."""
    if unrated is None or not warehouse.has_table(UNRATED):
        return {}
    key = {"fingerprint": _fingerprint(models, unrated)}
    found = warehouse.query("unrated_among.sql", key, {"wanted": placed(example_ids)})
    count = int(found["examples"].iloc[0])
    return {"examples without a rating": count, "each counts as": unrated} if count else {}


@indicator(
    "judge_rating",
    version=PROMPT_VERSION,
    uses=("judge",),
    text="conversation",
    whole=True,
    told=_told,
)
def judge_rating(batch: ScoringBatch, unrated: Unrated = None) -> np.ndarray:
    """The judge's rating of each example, 1 to 5.

    Args:
        unrated: what an example counts as that gets no usable reply; left out: that is an error.

    Raises:
        IndicatorError: some examples got no usable reply, and ``unrated`` is not set.
        JudgeError: the judge cannot be asked, or its budget is spent.
    """
    assert batch.warehouse is not None  # a whole indicator has one
    rows: list[dict[Any, Any]] = batch.examples.to_dict("records")
    models = batch.models
    examples = {str(row["example_id"]): Shown.of(row) for row in rows}
    with judge_of(models.study, models.gpu) as judge:
        ratings = rate_all(examples, judge, batch.warehouse, batch.on_done)
    problems = {e: str(r.problem) for e, r in ratings.items() if r.value is None}
    if unrated is None and problems:
        some = [f"{_place(row)}: {problems[row['example_id']]}"
                for row in rows if row["example_id"] in problems][:FEW]  # fmt: skip
        raise IndicatorError(
            f"judge_rating: {len(problems)} of {len(rows)} examples got no rating; "
            f"{'; '.join(some)}{' …' * (len(problems) > FEW)}. The other ratings are kept: "
            "materialize the same again to ask for these once more, or say in the option "
            "`unrated` what they count as"
        )
    if unrated is not None:
        _write_down(problems, list(examples), _fingerprint(models, unrated), batch.warehouse)
    return np.array([unrated if r.value is None else r.value for r in ratings.values()], float)


def _fingerprint(models: Models, unrated: float) -> str:
    return fingerprint(models.fingerprint("judge"), PROMPT_VERSION, unrated)


def _write_down(
    problems: dict[str, str], examples: list[str], key: str, warehouse: Warehouse
) -> None:
    """Which of these examples got the option's number, and why, in place of what was said before:
    a run that was killed before it kept the scores asks again."""
    rows = pd.DataFrame(
        {
            "example_id": list(problems),
            "fingerprint": key,
            "problem": list(problems.values()),
        },
        dtype=object,
    )
    if len(rows) or warehouse.has_table(UNRATED):
        where = {"fingerprint": key, "example_id": examples}
        warehouse.replace_rows(UNRATED, rows, where)


def _place(row: dict[Any, Any]) -> str:
    return str(Place.of(row)) if pd.notna(row.get("line")) else str(row["example_id"])
