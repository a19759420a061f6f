"""The series of mixture seeds: which there are, which version of the pool each belongs to, which
are retired, and which are drawn next.

A seed whose mixture was finetuned on keeps its version, whatever the pool becomes: that was paid
for. One that was not yet belongs to the newest version. A mixture with examples that the pool no
longer holds is retired. What a new version adds is told by new seeds, chosen so that they tell most
beside those measured already (D-optimality, see design).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from im_assets.candidates.versions import changes, current_version, held_in
from im_assets.experiments.experiment import seed_key, seed_of
from im_assets.mixtures.design import d_optimal, principal_directions

COLUMNS = ["seed", "version", "refit", "retired", "as_of", "number"]
TYPES: dict[str, Any] = {
    "seed": "string",
    "version": "int64",
    "refit": bool,
    "retired": bool,
    "as_of": "int64",
    "number": "int64",
}
# The indicators that the mixtures with these numbers are expected to have when they are drawn from
# this version of the pool: one row a number (see design.expected_indicators).
Expect = Callable[[int, Sequence[int]], pd.DataFrame]


def next_series(
    previous: pd.DataFrame | None,
    profile: Sequence[str],
    paid: Mapping[str, Collection[str]],
    history: pd.DataFrame,
    new_seeds: int,
) -> tuple[pd.DataFrame, int]:
    """The series as the pool is now, before new seeds are added, and how many are to be.

    Args:
        previous: the series as it was; None: there was none.
        profile: partition keys of the profile's seeds.
        paid: of the keys whose mixtures were drawn as the profile says, and finetuned on, the
            example_ids of their members.
        history: of the pool (see candidates.versions).
        new_seeds: drawn from a new version of the pool.

    Returns:
        seed, version, refit (drawn from a later version, not named by the profile), retired, as_of
        (the version of the pool that the series answers), number (what the mixture's randomness is
        made from); and the number of new seeds: all of ``new_seeds`` when rows were added, a
        mixture was retired, or seeds were proposed for an earlier version and never finetuned on;
        else 0.
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
    numbers = {
        key: int(old[key].get("number", seed_of(key)))
        if key in stays and key in old
        else seed_of(key)
        for key in versions
    }
    held = set(held_in(history, newest)["example_id"])
    retired = {key for key in versions if key in paid and not held.issuperset(paid[key])}
    retired |= {key for key in versions if key in known and key not in paid}
    series = pd.DataFrame(
        [(k, v, k in later, k in retired, newest, numbers[k]) for k, v in versions.items()],
        columns=COLUMNS,
    ).astype(TYPES)
    as_of = max((int(row["as_of"]) for row in old.values()), default=1)
    grown = changes(history, as_of)[0] > 0 or bool(retired - known) or bool(dropped)
    return series, new_seeds if paid and grown else 0


def designed(
    series: pd.DataFrame, open_: Collection[str], expect: Expect, candidates: int
) -> pd.DataFrame:
    """The series with the numbers of the mixtures that tell most beside the others (D-optimal).

    Args:
        open_: the keys whose mixtures are chosen; those of the others stay.
        candidates: how many numbers, from 0, are looked at, those in use left out.
    """
    mine = series["seed"].isin(open_)
    if not mine.any():
        return series
    fixed = series[~mine]
    taken = set(fixed["number"])
    numbers = [number for number in range(len(series) + candidates) if number not in taken]
    newest = int(series["as_of"].max())
    chosen = _most_telling(fixed[~fixed["retired"]], numbers, int(mine.sum()), newest, expect)
    found = series.copy()
    found.loc[mine, "number"] = chosen
    return found


def with_new_seeds(
    series: pd.DataFrame,
    count: int,
    history: pd.DataFrame,
    expect: Expect | None,
    candidates: int,
) -> pd.DataFrame:
    """The series with ``count`` further seeds of the newest version.

    Args:
        expect: what mixtures are expected to be; None: nothing is scored, and the next numbers are
            taken.
        candidates: how many seed numbers are looked at, those after the last one used.

    Raises MixtureError when the pool holds fewer examples than a mixture.
    """
    newest = current_version(history)
    used = [*map(seed_of, series["seed"]), *series["number"]]
    first = max(map(int, used), default=-1) + 1
    numbers = list(range(first, first + max(count, candidates)))
    chosen = numbers[:count]
    if expect is not None and count:
        chosen = _most_telling(series[~series["retired"]], numbers, count, newest, expect)
    new = pd.DataFrame(
        [(seed_key(number), newest, True, False, newest, number) for number in chosen],
        columns=COLUMNS,
    ).astype(series.dtypes.to_dict())
    return pd.concat([series, new], ignore_index=True)


def _most_telling(
    measured: pd.DataFrame, numbers: Sequence[int], count: int, version: int, expect: Expect
) -> list[int]:
    """Those ``count`` of ``numbers``, drawn from a version of the pool, that tell most beside what
    is measured (rows of the series)."""
    known = [
        expect(int(str(v)), list(map(int, rows))).to_numpy()
        for v, rows in measured.groupby("version")["number"]
    ]
    expected = expect(version, numbers).to_numpy()
    stacked = np.concatenate([expected, *known])
    # All directions in which mixtures can differ at all; what is below is rounding.
    most = max(1, count + len(stacked) - len(numbers) - 1)
    vectors = principal_directions(stacked, share=1 - 1e-9, most=most)
    if not vectors.shape[1]:
        return list(numbers[:count])
    own = len(numbers)
    places = d_optimal(vectors[:own], count, seed=0, measured=vectors[own:])
    return [numbers[place] for place in places]
