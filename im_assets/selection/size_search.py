"""How large a selection should be: BlendSearch over its size (paper v2), next to a plain grid.

Finetuning on a small selection costs less, so the search starts with the smallest. The paper found
the loss not monotone in the size; a curve of few points measured once is noisy too, which is why
the sizes are searched on one half of the evaluation set and reported on the other.

BlendSearch (Wang et al. 2021, ICLR) is FLAML's; it is driven by its suggest/complete interface, so
that a size is finetuned on once and the finetunes of the grid can run side by side.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from im_assets.selection.selecting import SelectionError
from im_resources.study import SearchSettings

Losses = tuple[float, float]  # on the half that is searched on, on the half that is reported
Evaluate = Callable[[Sequence[int]], Sequence[Losses]]


@dataclass(frozen=True)
class Trial:
    """One size of one method, in the order of trial; ``chosen`` marks the search's result."""

    method: Literal["blend_search", "grid"]
    trial: int
    size: int
    search_loss: float
    report_loss: float
    chosen: bool = False


def search_sizes(evaluate: Evaluate, settings: SearchSettings, pool_size: int) -> list[Trial]:
    """Search for the size of the least loss, then measure a geometric grid of as many sizes.

    Each distinct size is evaluated once, also when both methods ask for it. Deterministic in
    ``settings.seed``.

    Args:
        evaluate: gives the losses of finetunes on selections of these sizes, in their order.
        pool_size: examples in the pool, the bound on ``settings.largest``.

    Returns:
        ``settings.trials`` trials of each method (fewer where the range holds fewer sizes). Chosen
        is the searched one with the least search_loss, the smaller of two; the report_loss plays
        no part.

    Raises:
        SelectionError: the pool does not hold more than ``settings.smallest`` examples.
    """
    smallest, largest = settings.smallest, min(settings.largest, pool_size)
    if largest <= smallest:
        raise SelectionError(
            f"selection.search.smallest is {smallest}, but the unseen pool holds only {pool_size} "
            "examples; lower it, so that there are sizes to search"
        )
    known: dict[int, Losses] = {}

    def measured(sizes: Sequence[int]) -> list[Losses]:
        new = [size for size in dict.fromkeys(sizes) if size not in known]
        if new:
            known.update(zip(new, evaluate(new), strict=True))
        return [known[size] for size in sizes]

    budget = min(settings.trials, largest - smallest + 1)
    searched = _blend_search(measured, smallest, largest, budget, settings.seed)
    best = min(searched, key=lambda size: (known[size][0], size))
    grid = grid_sizes(smallest, largest, budget)
    measured(grid)
    trials = [Trial("blend_search", k, size, *known[size]) for k, size in enumerate(searched)]
    trials = [replace(trial, chosen=trial.size == best) for trial in trials]
    return trials + [Trial("grid", k, size, *known[size]) for k, size in enumerate(grid)]


def grid_sizes(smallest: int, largest: int, count: int) -> list[int]:
    """Geometrically spaced sizes with both ends; fewer than ``count`` where roundings coincide."""
    sizes = np.rint(np.geomspace(smallest, largest, count)).astype(int)
    return [int(size) for size in np.unique(sizes)]


def split_halves(eval_ids: Sequence[str]) -> tuple[set[str], set[str]]:
    """The evaluation's instructions in two halves, to search on and to report on.

    By SHA-256 of the id, so that neither the order nor the kind of instruction decides.

    Raises SelectionError when there are fewer than two instructions.
    """
    ids = sorted(set(eval_ids), key=lambda i: hashlib.sha256(i.encode()).hexdigest())
    if len(ids) < 2:
        raise SelectionError(
            f"a searched selection.size needs at least 2 evaluation instructions, found {len(ids)}"
        )
    return set(ids[::2]), set(ids[1::2])


def _blend_search(
    measured: Evaluate, smallest: int, largest: int, budget: int, seed: int
) -> list[int]:
    """The sizes that BlendSearch evaluates, in its order."""
    sizes: list[int] = []
    searcher = _searcher(smallest, largest, budget, seed)
    # It may suggest a size again, and gives None when it rejects its own suggestion.
    for number in range(50 * budget):
        if len(sizes) == budget:
            break
        suggested = searcher.suggest(str(number))
        if suggested is None:
            continue
        size = int(suggested["size"])
        [(loss, _)] = measured([size])
        # The cost is the size, not the time, so that the search is deterministic.
        result = {"loss": loss, "cost": float(size), "config": suggested}
        searcher.on_trial_complete(str(number), result)
        if size not in sizes:
            sizes.append(size)
    return sizes


def _searcher(smallest: int, largest: int, budget: int, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flaml warns that its AutoML part is not installed
        import optuna
        from flaml.tune.sample import lograndint
        from flaml.tune.searcher.blendsearch import BlendSearch
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    middle = round(math.sqrt(smallest * largest))
    return BlendSearch(
        metric="loss",
        mode="min",
        space={"size": lograndint(smallest, largest + 1)},
        low_cost_partial_config={"size": smallest},
        points_to_evaluate=[{"size": smallest}, {"size": middle}],
        num_samples=budget,
        seed=seed,
        cost_attr="cost",
        cost_budget=math.inf,
    )
