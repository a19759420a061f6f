"""Which files are complete. A clock is not asked: what was the same in two looks has settled."""

from collections.abc import Collection, Iterable

from im_assets.landing.folder import Arrival


def settled(arrivals: Iterable[Arrival], seen: Collection[str]) -> list[Arrival]:
    """The arrivals with a marker beside them, or with a signature that was seen before."""
    known = set(seen)
    return [arrival for arrival in arrivals if arrival.marked or arrival.signature in known]
