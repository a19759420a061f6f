"""The series of mixture seeds: which there are, which version of the pool each belongs to, which
are retired, and which are drawn next.

A seed whose mixture was finetuned on keeps its version, whatever the pool becomes: that was paid
for. One that was not yet belongs to the newest version. A mixture with examples that the pool no
longer holds is retired. What a new version adds is told by new seeds, chosen so that they tell most
beside those measured already (D-optimality, see design).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from im_assets.candidates.versions import changes, current_version, held_in
from im_assets.common.tracking import tracked
from im_assets.experiments.experiment import seed_key, seed_of
from im_assets.mixtures.design import d_optimal, expected_indicators, principal_directions
from im_assets.mixtures.drawing import draw_mixtures
from im_resources.study.schema.base import Shares

COLUMNS = ["seed", "version", "refit", "retired", "as_of"]


def next_series(
    previous: pd.DataFrame | None,
    profile: Sequence[str],
    paid: Collection[str],
    history: pd.DataFrame,
    size: int,
    new_seeds: int,
    shares: Shares = "uniform",
) -> tuple[pd.DataFrame, int]:
    """The series as the pool is now, before new seeds are added, and how many are to be.

    Args:
        previous: the series as it was; None: there was none.
        profile: partition keys of the profile's seeds.
        paid: keys whose mixtures were drawn as the profile says, and finetuned on.
        history: of the pool (see candidates.versions).
        size: examples in a mixture.
        new_seeds: drawn from a new version of the pool.
        shares: how the sources' shares are drawn.

    Returns:
        seed, version, refit (drawn from a later version, not named by the profile), retired, as_of
        (the version of the pool that the series answers); and the number of new seeds: all of
        ``new_seeds`` when rows were added, a mixture was retired, or seeds were proposed for an
        earlier version and never finetuned on; else 0.
    """
    newest = current_version(history)
    old = {} if previous is None else previous.set_index("seed").to_dict("index")
    before = {str(key): int(row["version"]) for key, row in old.items()}
    later = [str(key) for key, row in old.items() if row["refit"] and key not in profile]
    waiting = [key for key in later if key not in paid]
    dropped = [key for key in waiting if before[key] != newest or not paid]
    known = {str(key) for key, row in old.items() if row["retired"]}
    stays = {*paid, *known}  # one that was retired stays so, its finetune forgotten or not
    dropped = [key for key in dropped if key not in known]
    versions = {
        # A study from before there was a series was drawn from the first version.
        key: before.get(key, 1) if key in stays else newest
        for key in (*profile, *(key for key in later if key not in dropped))
    }
    retired = _retired({k: v for k, v in versions.items() if k in stays}, history, size, shares)
    series = pd.DataFrame(
        [(k, v, k in later, k in retired, newest) for k, v in versions.items()], columns=COLUMNS
    ).astype({"seed": "string", "version": "int64", "refit": bool, "retired": bool})
    as_of = max((int(row["as_of"]) for row in old.values()), default=1)
    grown = changes(history, as_of)[0] > 0 or bool(retired - known) or bool(dropped)
    return series, new_seeds if paid and grown else 0


def _retired(
    versions: Mapping[str, int], history: pd.DataFrame, size: int, shares: Shares
) -> set[str]:
    """The keys whose mixtures hold an example that the newest version of the pool does not."""
    newest = set(held_in(history, current_version(history))["example_id"])
    found: set[str] = set()
    for version in sorted(set(versions.values())):
        pool = held_in(history, version)
        if set(pool["example_id"]) <= newest:
            continue
        mine = [key for key, drawn_from in versions.items() if drawn_from == version]
        drawn = draw_mixtures(pool, map(seed_of, mine), size, shares)
        told = tracked(drawn, f"drawing from version {version} again", "mixtures", len(mine))
        for key, (_, mixture) in zip(mine, told, strict=True):
            if not set(mixture["example_id"]) <= newest:
                found.add(key)
    return found


def with_new_seeds(
    series: pd.DataFrame,
    count: int,
    history: pd.DataFrame,
    means: pd.DataFrame | None,
    size: int,
    candidates: int,
    shares: Shares = "uniform",
) -> pd.DataFrame:
    """The series with ``count`` further seeds of the newest version.

    Args:
        means: mean of each indicator (columns) over the scored examples of each source (rows), for
            every source of every version; None: nothing is scored, and the next numbers are taken.
        candidates: how many seed numbers are looked at, those after the last one used.
        shares: how the sources' shares are drawn.

    Raises MixtureError when the pool holds fewer than ``size`` examples.
    """
    newest, first = current_version(history), max(map(seed_of, series["seed"]), default=-1) + 1
    numbers = list(range(first, first + max(count, candidates)))
    chosen = numbers[:count]
    measured = series[~series["retired"]]
    if means is not None and count:
        groups = measured.groupby("version")["seed"]
        known = [
            _expected(history, int(str(version)), means, list(map(seed_of, keys)), size, shares)
            for version, keys in groups
        ]
        expected = _expected(history, newest, means, numbers, size, shares)
        stacked = np.concatenate([expected.to_numpy(), *(k.to_numpy() for k in known)])
        # All directions in which mixtures can differ at all; what is below is rounding.
        most = max(1, count + len(stacked) - len(numbers) - 1)
        vectors = principal_directions(stacked, share=1 - 1e-9, most=most)
        if vectors.shape[1]:
            own = len(numbers)
            places = d_optimal(vectors[:own], count, seed=0, measured=vectors[own:])
            chosen = [numbers[place] for place in places]
    new = pd.DataFrame(
        [(seed_key(number), newest, True, False, newest) for number in chosen], columns=COLUMNS
    ).astype(series.dtypes.to_dict())
    return pd.concat([series, new], ignore_index=True)


def _expected(
    history: pd.DataFrame,
    version: int,
    means: pd.DataFrame,
    seeds: Sequence[int],
    size: int,
    shares: Shares,
) -> pd.DataFrame:
    counts = held_in(history, version)["source"].value_counts()
    held = {str(source): int(count) for source, count in counts.items()}
    return expected_indicators(held, means, seeds, size, shares)
