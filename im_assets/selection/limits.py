"""Limits on a selection, whatever strategy ranks: quotas, strata, and no near duplicates.

One walk along the strategy's order keeps an example unless its source, category or language is full
or it resembles one kept before; a strategy that turns out too short is asked for more (see
choosing). Strata are quotas that sum to the selection's size, so that each is filled.
"""

from dataclasses import dataclass

import numpy as np

from im_assets.common.tracking import tracked
from im_assets.mixtures.drawing import allocate
from im_assets.selection.pool import Pool
from im_assets.selection.selecting import SelectionError
from im_resources.study import SelectionSettings

# Examples compared with the kept ones at once: bounds the block to 512 x the selection's size.
BLOCK = 512


@dataclass(frozen=True)
class Limits:
    """What a selection of ``size`` may hold.

    ``groups`` holds, per quota, the number of each example's group [examples] and the most
    examples that each group may have [groups]; ``vectors`` are unit vectors [examples, dimensions].
    """

    size: int
    groups: tuple[tuple[np.ndarray, np.ndarray], ...]
    vectors: np.ndarray | None
    similarity: float

    @classmethod
    def of(cls, settings: SelectionSettings | None, pool: Pool, size: int) -> "Limits | None":
        """The limits of the profile's ``selection``; None when it sets none.

        A share of ``size`` is rounded down, but one example of each group is always allowed.

        Raises SelectionError when the pool has no such column as a quota or stratum counts.
        """
        threshold = settings.near_duplicate_similarity if settings else None
        if settings is None or not (settings.max_share or settings.stratify or threshold):
            return None
        groups = []
        for column, share in settings.max_share.items():
            names, group = grouped(pool, column, f"selection.max_share.{column}")
            groups.append((group, np.full(len(names), max(1, int(share * size + 1e-9)))))
        if settings.stratify is not None:
            names, group = grouped(pool, settings.stratify, "selection.stratify")
            held = dict(zip(names, np.bincount(group).tolist(), strict=True))
            parts = allocate(held, held, size)
            groups.append((group, np.array([parts[name] for name in names])))
        vectors = pool.embeddings() if threshold else None
        return cls(size, tuple(groups), vectors, threshold or 1.0)

    def walk(self, order: np.ndarray) -> np.ndarray:
        """The first ``size`` positions of ``order`` that the limits allow; fewer if it ends."""
        counts = [np.zeros(len(most), dtype=int) for _, most in self.groups]
        kept: list[int] = []
        blocks = range(0, len(order), BLOCK)
        for start in tracked(blocks, "applying the limits", f"blocks of {BLOCK} examples"):
            block = order[start : start + BLOCK]
            near = self._resembles(block, np.array(kept, dtype=int))
            crowded: np.ndarray = np.any(near, axis=1)
            twins = self._resembles(block, block)
            for row, position in enumerate(block.tolist()):
                mine = [
                    (count, group[position], most[group[position]])
                    for count, (group, most) in zip(counts, self.groups, strict=True)
                ]
                if crowded[row] or any(count[number] >= most for count, number, most in mine):
                    continue
                for count, number, _ in mine:
                    count[number] += 1
                kept.append(position)
                crowded |= twins[row]
                if len(kept) == self.size:
                    return np.array(kept, dtype=np.int64)
        return np.array(kept, dtype=np.int64)

    def _resembles(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether the cosine of two positions is above the threshold, [some, others]."""
        if self.vectors is None:
            return np.zeros((len(some), len(others)), dtype=bool)
        resembling: np.ndarray = self.vectors[some] @ self.vectors[others].T > self.similarity
        return resembling


def grouped(pool: Pool, column: str, setting: str) -> tuple[list[str], np.ndarray]:
    """The names of the column's groups, sorted, and the number of each example's, [examples].

    Examples without a value are a group too, ``""``. Raises SelectionError, naming the setting,
    when the pool has no such column.
    """
    if column not in pool.examples:
        raise SelectionError(
            f"{setting}: the unseen pool has no column {column!r}; it has: "
            f"{', '.join(map(str, pool.examples.columns))}"
        )
    values = pool.examples[column].astype(object).fillna("").astype(str).to_numpy()
    names, group = np.unique(values, return_inverse=True)
    return names.tolist(), group
