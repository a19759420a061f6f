"""The randomness of all draws: SHA-256 of a seed and a name, the same on every machine."""

import hashlib
from collections.abc import Iterable

from im_resources.study.schema.base import Take


def uniform(seed: int, name: str) -> float:
    """A uniform random number in (0, 1) that belongs to a seed and a name."""
    return (int(digest(seed, f"weight:{name}")[:13], 16) + 0.5) / 16**13


def digest(seed: int, name: str) -> str:
    """SHA-256 of a seed and a name, in hex: the randomness of all draws."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def sample_rank(seed: int, content: str) -> str:
    """The place of a row among all that a sample is taken of: the lowest are in it.

    It depends on nothing else, so that a row more displaces at most one, and a larger sample holds
    the smaller. Apart from the ranks that mixtures are drawn by.
    """
    return digest(seed, f"sample:{content}")


def taken(names: Iterable[str], most: int | None, take: Take, seed: int) -> set[str]:
    """Those of the names, of which some may be equal, that are taken: at most so many."""
    known = list(dict.fromkeys(names))
    if most is None or len(known) <= most:
        return set(known)
    if take == "sample":
        known.sort(key=lambda name: sample_rank(seed, name))
    return set(known[:most])
