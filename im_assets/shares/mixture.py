"""The proposed mixture as examples: how many of each source, and which."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pandas as pd

from im_assets.common.digests import digest
from im_assets.mixtures.drawing import allocate


class Drawn(NamedTuple):
    """One row of a mixture; ``repetition`` is 0 where the example is in it for the first time."""

    example_id: str
    source: str
    repetition: int


def counts_of(shares: Mapping[str, float], size: int) -> dict[str, int]:
    """Split ``size`` examples by shares: largest remainder, so that they sum to it exactly.

    A source without a share is left out. Ties go to the source whose name sorts first.
    """
    wanted = {source: share for source, share in shares.items() if share > 0}
    return allocate(wanted, dict.fromkeys(wanted, size), size)


def draw(candidates: pd.DataFrame, counts: Mapping[str, int]) -> list[Drawn]:
    """The rows of a mixture, in an order that mixes the sources.

    Of each source all examples as often as they are needed whole, and then a part of them without
    replacement: none is in the mixture more than once more often than another of its source. Which,
    and in which order, is SHA-256 of the example_id, so that more rows of a source hold the fewer.

    Args:
        candidates: columns example_id, source; each example_id once.
        counts: rows of each source.
    """
    rows: list[Drawn] = []
    for source, ids in candidates.groupby("source", sort=True)["example_id"]:
        name = str(source)
        whole, part = divmod(counts.get(name, 0), len(ids))
        for repetition in range(whole + (part > 0)):
            taken = ids if repetition < whole else _first(ids, part)
            rows += [Drawn(str(i), name, repetition) for i in taken]
    return sorted(rows, key=lambda row: digest(row.repetition, f"place:{row.example_id}"))


def _first(ids: Iterable[str], count: int) -> list[str]:
    return sorted(map(str, ids), key=lambda i: digest(0, f"mixture:{i}"))[:count]
