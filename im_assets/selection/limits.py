"""Limits on a selection, whatever strategy ranks: quotas, and no near duplicates.

One walk along the strategy's order keeps an example unless its source or category is full or it
resembles one kept before; a strategy that turns out too short is asked for more (see choosing).
"""

from dataclasses import dataclass

import numpy as np

from im_assets.selection.pool import Pool
from im_assets.selection.selecting import SelectionError
from im_resources.study import SelectionSettings

# Examples compared with the kept ones at once: bounds the block to 512 x the selection's size.
BLOCK = 512


@dataclass(frozen=True)
class Limits:
    """What a selection of ``size`` may hold.

    ``groups`` holds, per quota, the number of each example's group [examples] and the most
    examples that one group may have; ``vectors`` are unit vectors [examples, dimensions].
    """

    size: int
    groups: tuple[tuple[np.ndarray, int], ...]
    vectors: np.ndarray | None
    similarity: float

    @classmethod
    def of(cls, settings: SelectionSettings | None, pool: Pool, size: int) -> "Limits | None":
        """The limits of the profile's ``selection``; None when it sets none.

        A share of ``size`` is rounded down, but one example of each group is always allowed.

        Raises SelectionError when the pool has no such column as a quota counts.
        """
        threshold = settings.near_duplicate_similarity if settings else None
        if settings is None or not (settings.max_share or threshold):
            return None
        groups = []
        for column, share in settings.max_share.items():
            if column not in pool.examples:
                raise SelectionError(
                    f"selection.max_share.{column}: the unseen pool has no column {column!r}; it "
                    f"has: {', '.join(map(str, pool.examples.columns))}"
                )
            _, group = np.unique(
                pool.examples[column].fillna("").astype(str).to_numpy(), return_inverse=True
            )
            groups.append((group, max(1, int(share * size + 1e-9))))
        vectors = pool.embeddings() if threshold else None
        return cls(size, tuple(groups), vectors, threshold or 1.0)

    def walk(self, order: np.ndarray) -> np.ndarray:
        """The first ``size`` positions of ``order`` that the limits allow; fewer if it ends."""
        counts = [np.zeros(group.max(initial=0) + 1, dtype=int) for group, _ in self.groups]
        kept: list[int] = []
        for start in range(0, len(order), BLOCK):
            block = order[start : start + BLOCK]
            near = self._resembles(block, np.array(kept, dtype=int))
            crowded: np.ndarray = np.any(near, axis=1)
            twins = self._resembles(block, block)
            for row, position in enumerate(block.tolist()):
                mine = [
                    (count, group[position], most)
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
