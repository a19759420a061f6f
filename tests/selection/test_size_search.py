"""The size search on curves whose least value is known, and the split it is judged on."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.selection.choosing import choose
from im_assets.selection.selecting import SelectionError
from im_assets.selection.size_search import (
    Losses,
    SizeTrial,
    measured_sizes,
    search_sizes,
    split_halves,
)
from im_resources.study import SearchSettings, StrategySettings
from tests.selection.pools import small_pool

BEST = 2532  # of 100,000 in the paper's second version


def bowl(size: int) -> float:
    """Least at BEST, rising with the ratio to it."""
    return 1 + 0.05 * math.log(size / BEST) ** 2


def measured(curve: Callable[[int], float], settings: SearchSettings) -> dict[int, Losses]:
    """The losses of every size that the settings have finetuned; the other half's tell the size."""
    return {size: (curve(size), -float(size)) for size in measured_sizes(settings)}


def of(trials: list[SizeTrial], method: str) -> list[SizeTrial]:
    return [trial for trial in trials if trial.method == method]


def chosen(trials: list[SizeTrial]) -> SizeTrial:
    [trial] = [trial for trial in trials if trial.chosen]
    return trial


@pytest.mark.parametrize("seed", range(5))
def test_the_search_comes_near_the_best_size_within_its_budget(seed: int) -> None:
    settings = SearchSettings(trials=12, seed=seed)
    trials = search_sizes(measured(bowl, settings), settings)
    searched = of(trials, "blend_search")
    assert len(searched) == len({trial.size for trial in searched}) == 12
    assert searched[0].size == 512  # low cost first
    assert len(of(trials, "grid")) == 12
    result = chosen(trials)
    assert result.method == "blend_search"
    assert result.search_loss == min(trial.search_loss for trial in searched)
    assert BEST / 1.3 < result.size < BEST * 1.3


def test_both_methods_look_at_measured_sizes_alone() -> None:
    settings = SearchSettings()
    losses = measured(bowl, settings)
    trials = search_sizes(losses, settings)
    assert {trial.size for trial in trials} <= set(losses)
    for trial in trials:
        assert (trial.search_loss, trial.report_loss) == (bowl(trial.size), -float(trial.size))
    grid = [trial.size for trial in of(trials, "grid")]
    assert (grid[0], grid[-1]) == (settings.smallest, settings.largest)
    assert len(grid) == settings.trials
    assert [trial.trial for trial in of(trials, "grid")] == list(range(settings.trials))


def test_the_search_is_deterministic_and_its_seed_matters() -> None:
    def sizes(seed: int) -> list[int]:
        settings = SearchSettings(trials=12, seed=seed)
        return [trial.size for trial in search_sizes(measured(bowl, settings), settings)]

    assert sizes(0) == sizes(0)
    assert sizes(0) != sizes(1)


def test_only_the_searched_half_guides_the_search() -> None:
    """The reported half may say what it will: neither the sizes nor the choice change."""
    settings = SearchSettings(trials=6)

    def looked_at(report: Callable[[int], float]) -> list[tuple[int, bool]]:
        losses = {size: (bowl(size), report(size)) for size in measured_sizes(settings)}
        return [(trial.size, trial.chosen) for trial in search_sizes(losses, settings)]

    assert looked_at(float) == looked_at(lambda size: -float(size))


def test_a_narrow_range_has_fewer_sizes_and_ends() -> None:
    settings = SearchSettings(smallest=5, largest=8, trials=8)
    assert measured_sizes(settings) == [5, 6, 7, 8]
    trials = search_sizes(measured(float, settings), settings)
    assert sorted(trial.size for trial in of(trials, "blend_search")) == [5, 6, 7, 8]
    assert chosen(trials).size == 5


def test_of_equal_losses_the_smaller_size_is_chosen() -> None:
    settings = SearchSettings(smallest=5, largest=8, trials=8)
    assert chosen(search_sizes(measured(lambda _: 2.0, settings), settings)).size == 5


@given(st.integers(1, 500), st.integers(1, 5000), st.integers(3, 20))
def test_the_measured_sizes_have_both_ends_and_rise(smallest: int, more: int, trials: int) -> None:
    settings = SearchSettings(smallest=smallest, largest=smallest + more, trials=trials)
    sizes = measured_sizes(settings)
    assert sizes[0] == smallest
    assert sizes[-1] == smallest + more
    assert len(sizes) <= 2 * trials - 1
    assert (np.diff(sizes) > 0).all()


def test_a_size_beyond_the_pool_is_refused_where_it_is_drawn() -> None:
    with pytest.raises(SelectionError, match=r"is 41, but the unseen pool holds only 40 examples"):
        choose(StrategySettings(strategy="rule"), small_pool(40), 41, seed=0)


@given(st.sets(st.text(min_size=1), min_size=2, max_size=40))
def test_the_halves_part_the_instructions_whatever_their_order(ids: set[str]) -> None:
    order = sorted(ids)
    first, second = split_halves(order * 2)
    assert not first & second
    assert first | second == ids
    assert 0 <= len(first) - len(second) <= 1
    assert split_halves(order[::-1]) == (first, second)


def test_one_instruction_cannot_be_split() -> None:
    with pytest.raises(SelectionError, match="at least 2 evaluation instructions, found 1"):
        split_halves(["a", "a"])
