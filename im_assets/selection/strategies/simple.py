"""What any selection has to beat: chance, and one indicator alone."""

import hashlib

import numpy as np

from im_assets.selection.pool import Pool
from im_assets.selection.registry import strategy


@strategy("random")
def at_random(pool: Pool, size: int, seed: int) -> np.ndarray:
    """A random subset; SHA-256 of seed and example_id, so that the rows' order does not matter."""
    ids = pool.examples["example_id"]
    digests = np.array([hashlib.sha256(f"{seed}:{i}".encode()).hexdigest() for i in ids], dtype=str)
    return np.argsort(digests, kind="stable")[:size]


@strategy("highest")
def highest(pool: Pool, size: int, seed: int, indicator: str) -> np.ndarray:
    """The highest values of an indicator first: len_out gives length-only, reward reward-only."""
    return pool.ranked(-pool.column(indicator))[:size]


@strategy("lowest")
def lowest(pool: Pool, size: int, seed: int, indicator: str) -> np.ndarray:
    """The lowest values of an indicator first."""
    return pool.ranked(pool.column(indicator))[:size]
