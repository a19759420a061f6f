"""rule, published_v1, published_v2: best prediction first (paper: Dolly, lowest log loss)."""

import numpy as np

from im_assets.rule.model import Rule
from im_assets.rule.published import published_rule
from im_assets.selection.pool import Pool
from im_assets.selection.registry import strategy
from im_assets.selection.selecting import SelectionError

V1, V2 = published_rule("published_v1"), published_rule("published_v2")


@strategy("rule", by_rule=True)
def by_rule(pool: Pool, size: int, seed: int) -> np.ndarray:
    """What the study's own rule ranks best. Raises SelectionError when it has no indicator."""
    return _best(pool, pool.rule, size)


@strategy("published_v1", needs=V1.indicators)
def by_published_v1(pool: Pool, size: int, seed: int) -> np.ndarray:
    """What the rule of the paper's version 1 ranks best: reward, length, KNN-6."""
    return _best(pool, V1, size)


@strategy("published_v2", needs=V2.indicators)
def by_published_v2(pool: Pool, size: int, seed: int) -> np.ndarray:
    """What the rule of the paper's versions 2 and 3 ranks best: reward and UniEval's three."""
    return _best(pool, V2, size)


def _best(pool: Pool, rule: Rule, size: int) -> np.ndarray:
    if not rule.indicators:
        raise SelectionError(
            "the rule has no indicator (none tells these mixtures apart), so it cannot rank "
            "examples; use more mixtures, or rule.source: published_v1"
        )
    for name in rule.indicators:
        pool.column(name)
    return pool.ranked(rule.badness(pool.indicators))[:size]
