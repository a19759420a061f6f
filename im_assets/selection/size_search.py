"""How large a selection should be: BlendSearch over its size (paper v2), next to a plain grid.

Finetuning on a small selection costs less, so the search starts with the smallest. The paper found
the loss not monotone in the size; a curve of few points measured once is noisy too, which is why
the sizes are searched on one half of the evaluation set and reported on the other; with
``evaluation.holdout``, on what rules are fitted on, and on what is held out.

BlendSearch (Wang et al. 2021, ICLR) is FLAML's. A search that waits for one loss before it names
the next size would hide its finetunes in one long step. So the sizes are an experiment like the
others, finetuned on side by side, and BlendSearch then looks among the measured ones: what it would
have found, and with how many.
"""

import hashlib
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from im_assets.selection.selecting import SelectionError
from im_resources.study import SearchSettings

Losses = tuple[float, float]  # on the half that is searched on, on the half that is reported


@dataclass(frozen=True)
class SizeTrial:
    """One size of one method, in the order of trial; ``chosen`` marks the search's result."""

    method: Literal["blend_search", "grid"]
    trial: int
    size: int
    search_loss: float
    report_loss: float
    chosen: bool = False


def measured_sizes(settings: SearchSettings) -> list[int]:
    """The sizes that are finetuned on: geometrically spaced, with both ends, and twice as many as
    either method may look at (less one), fewer where roundings coincide."""
    count = 2 * settings.trials - 1
    sizes = np.rint(np.geomspace(settings.smallest, settings.largest, count)).astype(int)
    return [int(size) for size in np.unique(sizes)]


def search_sizes(
    losses: Mapping[int, Losses], settings: SearchSettings, sign: int = 1
) -> list[SizeTrial]:
    """The size of the least loss among the measured ones, by BlendSearch and by a plain grid.

    Both look at ``settings.trials`` sizes: the grid at every other measured one, BlendSearch at
    those that it asks for, each taken as the nearest measured size. Deterministic in
    ``settings.seed``.

    Args:
        losses: the losses of every measured size, or what else is the rule's target.
        sign: -1 where higher values are the better ones.

    Returns:
        The trials of each method. Chosen is the searched one with the least search_loss, the
        smaller of two; the report_loss plays no part.
    """
    sizes = sorted(losses)
    budget = min(settings.trials, len(sizes))
    searched = _blend_search(losses, sizes, budget, settings.seed, sign)
    best = min(searched, key=lambda size: (sign * losses[size][0], size))
    trials = [SizeTrial("blend_search", k, size, *losses[size]) for k, size in enumerate(searched)]
    trials = [replace(trial, chosen=trial.size == best) for trial in trials]
    return trials + [SizeTrial("grid", k, s, *losses[s]) for k, s in enumerate(sizes[::2])]


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
    losses: Mapping[int, Losses], measured: Sequence[int], budget: int, seed: int, sign: int
) -> list[int]:
    """The measured sizes that BlendSearch looks at, in its order."""
    sizes: list[int] = []
    logs = np.log(measured)
    searcher = _searcher(measured[0], measured[-1], budget, seed)
    # It may suggest a size again, and gives None when it rejects its own suggestion.
    for number in range(50 * budget):
        if len(sizes) == budget:
            break
        suggested = searcher.suggest(str(number))
        if suggested is None:
            continue
        size = measured[int(np.argmin(np.abs(logs - math.log(suggested["size"]))))]
        # The cost is the size, not the time, so that the search is deterministic.
        result = {"loss": sign * losses[size][0], "cost": float(size), "config": suggested}
        searcher.on_trial_complete(str(number), result)
        if size not in sizes:
            sizes.append(size)
    return sizes


def _searcher(smallest: int, largest: int, budget: int, seed: int) -> Any:
    with warnings.catch_warnings(), _without_ray():
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


@contextmanager
def _without_ray() -> Iterator[None]:
    """What is imported in the block finds no Ray.

    Where it is installed, flaml mixes its own classes with those of ray.tune, and fails; it would
    also search otherwise (flaml/tune/searcher/blendsearch.py).
    """
    there = sys.modules.get("ray")
    sys.modules["ray"] = None  # type: ignore[assignment]  # so that importing it is an ImportError
    try:
        yield
    finally:
        del sys.modules["ray"]
        if there is not None:
            sys.modules["ray"] = there
