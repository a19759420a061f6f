"""Which seeds there are: what was paid for stays, what was withdrawn retires, what is new comes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from im_assets.candidates.versions import held_in, next_history
from im_assets.experiments.experiment import seed_key, seed_of
from im_assets.mixtures.design import expected_indicators, information
from im_assets.mixtures.drawing import draw_mixture
from im_assets.mixtures.experiment import SERIES, mixture_experiment
from im_assets.mixtures.series import Expect, next_series, with_new_seeds
from im_resources.study import load_study

SIZE = 6
PROFILE = [seed_key(seed) for seed in range(5)]
MEANS = pd.DataFrame(
    {"len": [1.0, 5.0, 3.0], "ppl": [2.0, 9.0, 1.0]}, index=pd.Index(list("xyz"), name="source")
)


def pool(count: int, without: Sequence[str] = ()) -> pd.DataFrame:
    """``count`` examples of three sources, but for these ids."""
    rows = [(f"id-{i}", "xyz"[i % 3]) for i in range(count)]
    return pd.DataFrame([r for r in rows if r[0] not in without], columns=["example_id", "source"])


def version_of(series: pd.DataFrame) -> dict[str, int]:
    return dict(zip(series["seed"], series["version"].astype(int), strict=True))


def drawn(history: pd.DataFrame, key: str, version: int) -> set[str]:
    """The members of a mixture."""
    return set(draw_mixture(held_in(history, version), seed_of(key), SIZE)["example_id"])


def paid_for(
    keys: Sequence[str], history: pd.DataFrame, series: pd.DataFrame | None = None
) -> dict[str, set[str]]:
    """What these mixtures hold, each of its version; of the first where there is no series."""
    versions = {} if series is None else version_of(series)
    return {key: drawn(history, key, versions.get(key, 1)) for key in keys}


def expect(history: pd.DataFrame) -> Expect:
    def expected(version: int, numbers: Sequence[int]) -> pd.DataFrame:
        counts = held_in(history, version)["source"].value_counts()
        held = {str(source): int(count) for source, count in counts.items()}
        return expected_indicators(held, MEANS, numbers, SIZE)

    return expected


def test_a_fresh_study_has_the_seeds_of_its_profile() -> None:
    history = next_history(None, pool(30))
    series, count = next_series(None, PROFILE, {}, history, 3)
    assert version_of(series) == dict.fromkeys(PROFILE, 1)
    assert count == 0
    assert not series["retired"].any()


def test_seeds_that_nothing_was_paid_for_follow_the_pool() -> None:
    history = next_history(None, pool(30))
    series, _ = next_series(None, PROFILE, {}, history, 3)
    history = next_history(history, pool(40))
    series, count = next_series(series, PROFILE, {}, history, 3)
    assert version_of(series) == dict.fromkeys(PROFILE, 2)
    assert count == 0


def grown(paid: Sequence[str] = PROFILE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """History and series of a study of 30 examples, finetuned on, to which 10 were added."""
    history = next_history(None, pool(30))
    series, _ = next_series(None, PROFILE, {}, history, 3)
    history = next_history(history, pool(40))
    series, count = next_series(series, PROFILE, paid_for(paid, history), history, 3)
    assert count == 3
    return history, with_new_seeds(series, count, history, expect(history), 50)


def test_new_rows_are_told_by_new_seeds_and_the_old_ones_keep_their_version() -> None:
    history, series = grown()
    assert version_of(series) | dict.fromkeys(PROFILE, 1) == version_of(series)
    new = series[series["refit"]]
    assert len(new) == 3
    assert set(new["version"]) == {2}
    assert not set(new["seed"]) & set(PROFILE)
    # Asked again, with the new ones waiting: the same.
    again, count = next_series(series, PROFILE, paid_for(PROFILE, history), history, 3)
    assert count == 0
    pd.testing.assert_frame_equal(again, series, check_dtype=False)


def test_several_landings_before_a_refit_make_one_set_of_new_seeds() -> None:
    history, series = grown()
    history = next_history(history, pool(50))
    series, count = next_series(series, PROFILE, paid_for(PROFILE, history), history, 3)
    assert count == 3
    assert not series["refit"].any()  # those of version 2 were never finetuned on
    series = with_new_seeds(series, count, history, expect(history), 50)
    assert set(series.loc[series["refit"], "version"]) == {3}
    # Those that were finetuned on stay, and only the others are proposed anew.
    _, first = grown()
    paid = [*PROFILE, str(first.loc[first["refit"], "seed"].iloc[0])]
    series, count = next_series(first, PROFILE, paid_for(paid, history, first), history, 3)
    assert count == 3
    assert version_of(series)[paid[-1]] == 2
    assert int(series["refit"].sum()) == 1


def test_a_mixture_with_a_withdrawn_example_is_retired_and_no_other() -> None:
    history, series = grown()
    mixtures = paid_for(list(series["seed"]), history, series)
    gone = sorted(mixtures[PROFILE[0]])[0]
    history = next_history(history, pool(40, without=[gone]))
    series, count = next_series(series, PROFILE, mixtures, history, 3)
    hit = {key for key, members in mixtures.items() if gone in members}
    assert set(series.loc[series["retired"], "seed"]) == hit
    assert count == 3  # in their place
    experiment = mixture_experiment(load_study("demo")).now({SERIES: series})
    assert not hit & set(experiment.keys)
    # Once: a retired mixture asks for no more the next time.
    assert next_series(series, PROFILE, mixtures, history, 3)[1] == 0


def test_an_example_that_no_mixture_holds_is_withdrawn_without_a_refit() -> None:
    history, series = grown()
    mixtures = paid_for(list(series["seed"]), history, series)
    held = set().union(*mixtures.values())
    [gone, *_] = sorted(set(pool(40)["example_id"]) - held)
    history = next_history(history, pool(40, without=[gone]))
    series, count = next_series(series, PROFILE, mixtures, history, 3)
    assert count == 0
    assert not series["retired"].any()


def test_a_study_from_before_there_were_versions_was_drawn_from_the_first() -> None:
    history = next_history(next_history(None, pool(30)), pool(40))
    series, count = next_series(None, PROFILE, paid_for(PROFILE[:2], history), history, 3)
    assert version_of(series) == dict.fromkeys(PROFILE[:2], 1) | dict.fromkeys(PROFILE[2:], 2)
    assert count == 3


def test_the_profile_s_seeds_are_followed() -> None:
    history, series = grown()
    more, _ = next_series(series, [*PROFILE, seed_key(77)], paid_for(PROFILE, history), history, 3)
    assert version_of(more)[seed_key(77)] == 2
    fewer, _ = next_series(series, PROFILE[:2], paid_for(PROFILE, history), history, 3)
    assert not set(fewer["seed"]) & set(PROFILE[2:])


def test_new_seeds_tell_more_than_the_next_numbers_would() -> None:
    """Beside the measured ones, by the determinant that the design is chosen by."""
    history, series = grown()

    def worth(seeds: Sequence[int]) -> float:
        known = [seed_of(key) for key in PROFILE]
        old = expect(history)(1, known).to_numpy()
        new = expect(history)(2, seeds).to_numpy()
        return information(np.concatenate([old, new]))

    chosen = [seed_of(key) for key in series.loc[series["refit"], "seed"]]
    assert worth(chosen) > worth([5, 6, 7])


def test_without_any_score_the_next_numbers_are_taken() -> None:
    history, series = grown()
    series = series[~series["refit"]]
    found = with_new_seeds(series, 2, history, None, 50)
    assert list(found.loc[found["refit"], "seed"]) == [seed_key(5), seed_key(6)]
