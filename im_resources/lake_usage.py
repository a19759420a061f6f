"""How often this process has written to lakes, and how often others came in between."""

import threading
from dataclasses import dataclass


@dataclass
class LakeUsage:
    """Of all lakes, since the process began.

    ``writes``: commits that made a snapshot; ``conflicts``: commits that had to be repeated since
    another's came first, by DuckLake or here; ``retries``: transactions that were done again as a
    whole, after a conflict that DuckLake does not solve or for want of catalog or store.
    """

    writes: int = 0
    conflicts: int = 0
    retries: int = 0


USAGE = LakeUsage()
_LOCK = threading.Lock()


def count(writes: int = 0, conflicts: int = 0, retries: int = 0) -> None:
    """Add to what was counted."""
    with _LOCK:
        USAGE.writes += writes
        USAGE.conflicts += conflicts
        USAGE.retries += retries
