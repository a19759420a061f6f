"""Random mixtures of the candidate sources (paper, section on the experiment's datasets).

Every source gets a random number r_i, uniform on (0, 1), and N · r_i / Σr of the mixture's N
examples; with exponential r_i the shares are from Dirichlet(1). Its examples are equally likely,
or, in a tilted mixture, as likely as its weights say (see tilting). All randomness is SHA-256 of
the seed and a name: the same seed gives the same mixture on every platform and library version,
whatever the order of the rows.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from im_assets.common.digests import uniform
from im_resources.study.schema.base import Shares
from im_resources.warehouse import sql

DRAW = sql("draw_mixture.sql")
DRAW_TILTED = sql("draw_tilted_mixture.sql")


class MixtureError(ValueError):
    """A mixture that cannot be drawn; says what is there and what was asked for."""


def draw_mixture(
    candidates: pd.DataFrame, seed: int, size: int, shares: Shares = "uniform"
) -> pd.DataFrame:
    """Draw one mixture (see ``draw_mixtures``)."""
    [(_, mixture)] = draw_mixtures(candidates, [seed], size, shares)
    return mixture


def source_weights(sources: Iterable[str], seed: int, shares: Shares) -> dict[str, float]:
    """The random weight r_i of each source in the mixture of a seed; its share is r_i / Σr.

    uniform: on (0, 1), the paper's. dirichlet: exponential, -ln of the same uniform number, whose
    shares are Dirichlet(1) (Devroye 1986, *Non-Uniform Random Variate Generation*, ch. XI.4).
    """
    weights = {source: uniform(seed, source) for source in sources}
    if shares == "dirichlet":
        return {source: -math.log(weight) for source, weight in weights.items()}
    return weights


def draw_mixtures(
    candidates: pd.DataFrame,
    seeds: Iterable[int],
    size: int,
    shares: Shares = "uniform",
    log_weights: Callable[[int], np.ndarray] | None = None,
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Draw the mixture of each seed.

    Of each source, the examples of least SHA-256 of seed and example_id (``digest``), found by
    DuckDB: that is one hash an example and seed, and no sort.

    Args:
        candidates: columns example_id, source; each example_id once.
        seeds: the mixtures' keys.
        size: examples in a mixture.
        shares: how those of the sources are drawn (see ``source_weights``).
        log_weights: of a seed, the logarithm of what each candidate's probability to be drawn next
            from its source is proportional to [candidates], finite; default: all are equally
            likely.

    Yields:
        The seed, and columns position (0 …), example_id, source, share (r_i / Σr of the example's
        source).

    Raises:
        MixtureError: the sources together hold fewer than ``size`` examples.
    """
    counts = candidates["source"].value_counts().sort_index()
    held = {str(source): int(count) for source, count in counts.items()}
    pool = pa.table({c: pa.array(candidates[c], pa.string()) for c in ("example_id", "source")})
    with duckdb.connect() as connection:
        connection.register("candidates", pool)
        for seed in seeds:
            weights = source_weights(held, seed, shares)
            sizes = allocate(weights, held, size)
            most, statement = max(1, *sizes.values()), DRAW
            if log_weights is not None:
                weighted = pool.append_column("log_weight", pa.array(log_weights(seed)))
                connection.register("candidates", weighted)
                statement = DRAW_TILTED
            found = connection.execute(statement, {"seed": str(seed), "most": most}).fetchall()
            ranked = dict(found)
            total = sum(weights.values())
            members = [
                (example_id, source, weights[source] / total)
                for source in sorted(held)
                for example_id in ranked.get(source, ())[: sizes[source]]
            ]
            mixture = pd.DataFrame(members, columns=["example_id", "source", "share"])
            mixture.insert(0, "position", range(size))
            yield seed, mixture


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
