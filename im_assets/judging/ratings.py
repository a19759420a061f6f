"""Asking a judge for many ratings: several at once, each kept as soon as it is there."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from im_assets.judging.asking import in_chunks, several, told_by
from im_assets.judging.rating import HIGHEST, LOWEST, REMINDER, SYSTEM, Shown, read_rating
from im_resources.judge import Endpoint, JudgeBudgetError, LocalJudge
from im_resources.warehouse import Warehouse

CACHE = "rating_cache"
SCALE = np.arange(LOWEST, HIGHEST + 1)


@dataclass(frozen=True)
class Rating:
    """One example's rating, or why there is none."""

    value: float | None
    problem: str | None = None


def rate_all(
    examples: dict[str, Shown],
    judge: Endpoint | LocalJudge,
    warehouse: Warehouse,
    on_rating: Callable[[int], None] | None = None,
) -> dict[str, Rating]:
    """A rating of every example, from the table ``rating_cache`` or from the judge.

    Examples that look alike are asked about once. Only ratings are cached, no problems, and each as
    it comes: a killed run asks again only for what was under way.

    Args:
        examples: by example_id.
        on_rating: called after each new one with how many there are, cached ones too.

    Returns:
        The rating of each example_id, in the order given.

    Raises:
        JudgeBudgetError: the budget is spent; says how far it reached.
        JudgeError: the judge cannot be asked at all.
    """
    # The first of those that look alike is asked about.
    first = {shown: example for example, shown in reversed(examples.items())}
    keys = {shown: shown.key(judge.fingerprint) for shown in first}
    values = cached_ratings(keys.values(), warehouse)
    found = {shown: Rating(values[key]) for shown, key in keys.items() if key in values}
    todo = [shown for shown in dict.fromkeys(examples.values()) if shown not in found]

    def keep(shown: Shown, rating: Rating) -> Rating:
        if rating.value is not None:
            row = {
                "key": keys[shown],
                "example_id": first[shown],
                "rating": rating.value,
                "judge": judge.name,
            }
            warehouse.append(CACHE, pd.DataFrame([row]), key=["key"])
        return rating

    new = (
        several(todo, lambda shown: keep(shown, _told(shown, judge)))
        if isinstance(judge, Endpoint)
        else ((shown, keep(shown, rating)) for shown, rating in _expected(todo, judge))
    )
    try:
        for shown, rating in new:
            found[shown] = rating
            if on_rating is not None:
                on_rating(len(found))
    except JudgeBudgetError as error:
        kept = len(cached_ratings(keys.values(), warehouse))
        problems = [str(rating.problem) for rating in found.values() if rating.problem]
        unusable = f"; {len(problems)} replies were of no use: {problems[0]}" if problems else ""
        raise JudgeBudgetError(
            f"{error}: {kept} of {len(keys)} ratings are there and are kept; materialize the same "
            f"again to go on, or raise judge.max_requests{unusable}"
        ) from None
    return {example: found[shown] for example, shown in examples.items()}


def cached_ratings(keys: Collection[str], warehouse: Warehouse) -> dict[str, float]:
    """The ratings that are kept under some keys."""
    if not keys or not warehouse.has_table(CACHE):
        return {}
    wanted = {"wanted": pa.table({"key": pa.array(list(keys), pa.string())})}
    found = warehouse.query("judge_ratings_of.sql", {}, wanted)
    return dict(zip(found["key"], found["rating"].astype(float), strict=True))


def _told(shown: Shown, endpoint: Endpoint) -> Rating:
    """One rating. A reply without one is answered with a reminder, once."""
    return Rating(*told_by(endpoint, SYSTEM, shown.prompt(), read_rating, "rating", REMINDER))


def _expected(todo: Sequence[Shown], judge: LocalJudge) -> Iterator[tuple[Shown, Rating]]:
    """The mean of the ratings 1 to 5, each as likely as the model makes it the next word."""
    prompts = [f"{SYSTEM}\n\n{shown.prompt()}\n\nRating:" for shown in todo]
    for part, logs in in_chunks(todo, prompts, [f" {value}" for value in SCALE], judge):
        odds = np.exp(logs - logs.max(axis=1, keepdims=True))
        means = (odds @ SCALE) / odds.sum(axis=1)
        for shown, mean in zip(part, means.tolist(), strict=True):
            lacking = mean != mean
            told = "the texts do not fit into the judge's context" if lacking else None
            yield shown, Rating(None if lacking else mean, told)
