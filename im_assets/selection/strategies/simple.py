"""What any selection has to beat: chance, chance within strata, and one indicator alone."""

import hashlib

import numpy as np

from im_assets.mixtures.drawing import allocate
from im_assets.selection.limits import grouped
from im_assets.selection.pool import Pool
from im_assets.selection.registry import strategy
from im_resources.study.schema.selection import Stratum


@strategy("random")
def at_random(pool: Pool, size: int, seed: int) -> np.ndarray:
    """A random subset; SHA-256 of seed and example_id, so that the rows' order does not matter."""
    return _shuffled(pool, seed)[:size]


@strategy("stratified")
def stratified(pool: Pool, size: int, seed: int, by: Stratum = "source") -> np.ndarray:
    """A random subset in which each source, category or language has the share that it has of the
    pool (largest remainder); examples without a value are a stratum.

    A random subset without the chance of its composition: what is left between two is which
    examples of a stratum they hold.

    Raises SelectionError when the pool has no such column.
    """
    names, group = grouped(pool, by, "strategy stratified, option by")
    held = dict(zip(names, np.bincount(group).tolist(), strict=True))
    parts = allocate(held, held, size)
    order = _shuffled(pool, seed)
    chosen = [order[group[order] == number][: parts[name]] for number, name in enumerate(names)]
    taken = np.zeros(len(pool), dtype=bool)
    taken[np.concatenate(chosen)] = True
    return order[taken[order]]


def _shuffled(pool: Pool, seed: int) -> np.ndarray:
    ids = pool.examples["example_id"]
    digests = np.array([hashlib.sha256(f"{seed}:{i}".encode()).hexdigest() for i in ids], dtype=str)
    return np.argsort(digests, kind="stable")


@strategy("highest")
def highest(pool: Pool, size: int, seed: int, indicator: str) -> np.ndarray:
    """The highest values of an indicator first: len_out gives length-only, reward reward-only."""
    return pool.ranked(-pool.column(indicator))[:size]


@strategy("lowest")
def lowest(pool: Pool, size: int, seed: int, indicator: str) -> np.ndarray:
    """The lowest values of an indicator first."""
    return pool.ranked(pool.column(indicator))[:size]
