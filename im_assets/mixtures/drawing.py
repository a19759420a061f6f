"""Random mixtures of the candidate sources (paper, section on the experiment's datasets).

Every source gets a random number r_i, uniform on (0, 1), and N · r_i / Σr of the mixture's N
examples. All randomness is SHA-256 of the seed and a name: the same seed gives the same mixture on
every platform and library version, whatever the order of the rows.
"""

from collections.abc import Mapping

import pandas as pd

from im_assets.common.digests import digest, uniform


class MixtureError(ValueError):
    """A mixture that cannot be drawn; says what is there and what was asked for."""


def draw_mixture(candidates: pd.DataFrame, seed: int, size: int) -> pd.DataFrame:
    """Draw one mixture.

    Args:
        candidates: columns example_id, source; each example_id once.
        seed: the mixture's key.
        size: examples in the mixture.

    Returns:
        Columns position (0 …), example_id, source, share (r_i / Σr of the example's source).

    Raises:
        MixtureError: the sources together hold fewer than ``size`` examples.
    """
    counts = candidates["source"].value_counts().sort_index()
    held = {str(source): int(count) for source, count in counts.items()}
    weights = {source: uniform(seed, source) for source in held}
    sizes = allocate(weights, held, size)
    ranked = candidates[["example_id", "source"]].assign(
        rank=[digest(seed, example_id) for example_id in candidates["example_id"]]
    )
    ranked = ranked.sort_values(["source", "rank"])
    chosen = ranked[ranked.groupby("source").cumcount() < ranked["source"].map(sizes)]
    total = sum(weights.values())
    return pd.DataFrame(
        {
            "position": range(size),
            "example_id": chosen["example_id"].to_numpy(),
            "source": chosen["source"].to_numpy(),
            "share": chosen["source"].map(weights).to_numpy() / total,
        }
    )


def allocate(weights: Mapping[str, float], held: Mapping[str, int], size: int) -> dict[str, int]:
    """Split ``size`` over the sources in proportion to ``weights``, never more than one holds.

    Largest remainder, so that the parts sum to ``size`` exactly; what a source cannot give goes to
    the others in proportion. Ties go to the source whose name sorts first.

    Raises MixtureError when all sources together hold less than ``size``.
    """
    if sum(held.values()) < size:
        counts = ", ".join(f"{source}: {count}" for source, count in held.items())
        raise MixtureError(
            f"a mixture of {size} examples cannot be drawn from {sum(held.values())} candidates "
            f"({counts}); lower mixtures.size or add candidate data"
        )
    parts: dict[str, int] = {}
    open_ = dict(weights)
    while open_:
        left = size - sum(parts.values())
        total = sum(open_.values())
        full = [s for s, w in open_.items() if left * w / total >= held[s]]
        if not full:
            exact = {s: left * w / total for s, w in open_.items()}
            parts |= {s: int(x) for s, x in exact.items()}
            by_remainder = sorted(exact, key=lambda s: (int(exact[s]) - exact[s], s))
            # A remainder never exceeds what a source holds: exact < held, so floor + 1 <= held.
            for source in by_remainder[: size - sum(parts.values())]:
                parts[source] += 1
            break
        for source in full:
            parts[source] = held[source]
            del open_[source]
    return parts
