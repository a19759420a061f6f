"""The registry of selection strategies.

A strategy is a function under the ``@strategy`` decorator: in a module of
``im_assets/selection/strategies/``, or in one that the profile names as a plugin. A profile line
``selection: {strategy: <name>, options: {…}}``, or an arm of ``validation.strategies``, puts it to
use (docs/extending.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from im_assets.scoring.registry import set_level
from im_assets.selection.selecting import SelectionError
from im_resources.registry import Registry
from im_resources.study import StrategySettings, Study, did_you_mean

Choose = Callable[..., np.ndarray]
# Gives a hash of the files that the options name. Raises SelectionError when there is no such file.
Content = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Strategy:
    """How a selection is made.

    ``choose(pool, size, seed, **options)`` gives the positions of ``size`` examples of the pool,
    best first; the same examples whatever the order of the pool's rows. ``needs`` names the
    indicators that it reads whatever its options are, and ``embeds`` says whether it reads the
    examples' embeddings; ``by_rule`` says that it ranks by the study's own rule, so that its
    selection is worth no more than that (see chance). ``content`` gives a hash of the files that
    its options name, which is part of what is drawn; None: it reads none.
    """

    name: str
    choose: Choose
    needs: tuple[str, ...] = ()
    content: Content | None = None
    embeds: bool = False
    by_rule: bool = False


STRATEGIES = Registry[Strategy](
    "selection strategy", "im_assets.selection.strategies", SelectionError
)


def strategy(
    name: str,
    *,
    needs: tuple[str, ...] = (),
    content: Content | None = None,
    embeds: bool = False,
    by_rule: bool = False,
) -> Callable[[Choose], Choose]:
    """Register the decorated function as the strategy ``name`` (see Strategy).

    Raises SelectionError when another function has the name already.
    """

    def register(choose: Choose) -> Choose:
        found = Strategy(name, choose, needs, content, embeds, by_rule)
        STRATEGIES.add(name, found, choose)
        return choose

    return register


def strategy_of(
    settings: StrategySettings, place: str = "selection"
) -> tuple[Strategy, dict[str, Any]]:
    """The strategy that ``settings`` name, and its checked options.

    Args:
        place: where in the profile the settings stand, for the error.

    Raises SelectionError for an unknown strategy or option (with the nearest known name), an
    option that is missing, or a value of the wrong kind.
    """
    found = STRATEGIES.get(settings.strategy, f"{place}.strategy")
    return found, STRATEGIES.options(found.choose, settings.options, f"{place}.options", skip=3)


def contents_of(*settings: StrategySettings) -> list[str]:
    """Hashes of the files that some strategies' options name, in order; none where they read none.

    Raises SelectionError when there is no such file.
    """
    found = []
    for each in settings:
        chosen, options = strategy_of(each)
        if chosen.content is not None:
            found.append(chosen.content(options))
    return found


def check_strategies(study: Study) -> None:
    """Check the strategies of selection, validation and mining when the profile is read.

    Raises SelectionError when one is unknown, has wrong options, or reads an indicator, or the
    embeddings, that the profile does not compute.
    """
    places: dict[str, StrategySettings] = {"selection": study.selection}
    if study.validation is not None:
        arms = study.validation.strategies
        places |= {f"validation.strategies.{name}": arm for name, arm in arms.items()}
    if study.mining is not None:
        arms = study.mining.strategies
        places |= {f"mining.strategies.{name}": arm for name, arm in arms.items()}
    known = list(study.scoring.indicators)
    for place, settings in places.items():
        found, options = strategy_of(settings, place)
        read = [(f"{place}.strategy", name) for name in found.needs]
        if "indicator" in options:
            read.append((f"{place}.options.indicator", options["indicator"]))
        for where, name in read:
            if name not in known:
                raise SelectionError(
                    f"{where}: {found.name} reads the indicator {name!r}, which the profile does "
                    f"not compute{did_you_mean(name, known)}; scoring.indicators has: "
                    f"{', '.join(known)}"
                )
        if found.embeds and not set_level(study.scoring):
            raise SelectionError(
                f"{place}.strategy: {found.name} reads the examples' embeddings, which the profile "
                "does not compute; add an indicator of them to scoring.indicators, such as "
                "knn_6: nearest_neighbour"
            )
