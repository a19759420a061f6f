"""How items are cut into groups: the pieces of work that are sent to nodes."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

# So many groups for each slot of the cluster: the slots end at nearly the same time, and a node
# that is lost takes little with it.
EACH_SLOT = 3
# Of more finetunes, a group would hold its slot for hours, while other runs wait.
MOST = 64
# A cluster that has no node yet is grown by what waits for one.
UNKNOWN_SLOTS = 8


def grouped(keys: Sequence[str], slots: int, size: int = 0) -> list[list[str]]:
    """Neighbours together, in order, in groups that differ by one at most.

    Args:
        slots: how many groups the cluster does at once; 0: it has no node yet.
        size: of each group; 0: see ``EACH_SLOT`` and ``MOST``.
    """
    if not keys:
        return []
    size = size or min(MOST, -(-len(keys) // (EACH_SLOT * (slots or UNKNOWN_SLOTS))))
    number = -(-len(keys) // size)
    small, larger = divmod(len(keys), number)
    ends = [k * small + min(k, larger) for k in range(number + 1)]
    return [list(keys[a:b]) for a, b in pairwise(ends)]


def sharded(weights: Mapping[str, int], most: int) -> list[list[str]]:
    """Neighbours together, in order: each group of ``most`` at most, or a single item.

    It is the same whatever the cluster is, so that two runs that ask for the same have the same.
    """
    groups: list[list[str]] = []
    held = 0
    for key, weight in weights.items():
        if not groups or held + weight > most:
            groups.append([])
            held = 0
        groups[-1].append(key)
        held += weight
    return groups
