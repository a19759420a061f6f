"""Small real pools: clusters of unit vectors, indicators that follow nothing, and a rule."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from im_assets.rule.model import Coefficient, Rule
from im_assets.selection.pool import Pool

INDICATORS = ("reward", "len_out", "knn_6", "und", "nat", "coh", "ppl", "ifd")


def linear_rule(constant: float = 1.0, **slopes: float) -> Rule:
    return Rule(
        source="fitted",
        constant=Coefficient(name="constant", estimate=constant),
        coefficients=tuple(Coefficient(name=n, estimate=b) for n, b in slopes.items()),
    )


RULE = linear_rule(reward=-0.2, knn_6=-0.9)


def embed(texts: Sequence[str]) -> np.ndarray:
    """A unit vector of four numbers for each text, by nothing but the text."""
    seeds = [int.from_bytes(text.encode()[-8:], "little") for text in texts]
    vectors = np.array([np.random.default_rng(seed).normal(size=4) for seed in seeds])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def small_pool(
    count: int,
    seed: int = 0,
    rule: Rule = RULE,
    columns: Sequence[str] = INDICATORS,
    clusters: int = 4,
    **changes: Any,
) -> Pool:
    """A pool whose examples lie in clusters; ties are common, since values are rounded."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(clusters, size=count)
    vectors = rng.normal(size=(clusters, 8))[cluster] * 2 + rng.normal(size=(count, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"id-{i:04d}" for i in rng.permutation(count)]
    examples = pd.DataFrame(
        {
            "example_id": ids,
            "instruction": [f"Question {i}?" for i in ids],
            "input": "",
            "output": [f"Answer {i}." for i in ids],
            "source": "pool",
            "category": [f"c{c}" for c in cluster],
        }
    )
    values = {name: np.round(rng.normal(1, 0.5, size=count), 1) for name in columns}
    pool: dict[str, Any] = {
        "examples": examples,
        "indicators": pd.DataFrame(values, index=pd.Index(ids, name="example_id")),
        "rule": rule,
        "embeddings": lambda: vectors.astype(np.float32),
        "set_size": 20,
        "set_level": frozenset({"knn_6"} & set(columns)),
        "embed": embed,
    }
    return Pool(**(pool | changes))


def reordered(pool: Pool, order: np.ndarray) -> Pool:
    """The same pool with its rows in another order."""
    vectors, tokens = pool.embeddings()[order], pool.tokens
    return Pool(
        examples=pool.examples.iloc[order].reset_index(drop=True),
        indicators=pool.indicators.iloc[order],
        rule=pool.rule,
        embeddings=lambda: vectors,
        set_size=pool.set_size,
        set_level=pool.set_level,
        embed=pool.embed,
        tokens=None if tokens is None else lambda: tokens()[order],
    )
