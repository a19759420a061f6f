"""The registry of selection strategies.

A strategy is a function in a module of ``im_assets/selection/strategies/`` under the ``@strategy``
decorator; a profile line ``selection: {strategy: <name>, options: {…}}``, or an arm of
``validation.strategies``, puts it to use. Adding a strategy is one file and one line.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from im_assets.rule.published import published_rule
from im_assets.selection import strategies as modules
from im_assets.selection.selecting import SelectionError
from im_resources.study import StrategySettings, Study, did_you_mean

Choose = Callable[..., np.ndarray]
_STRATEGIES: dict[str, "Strategy"] = {}


@dataclass(frozen=True)
class Strategy:
    """How a selection is made.

    ``choose(pool, size, seed, **options)`` gives the positions of ``size`` examples of the pool,
    best first; the same examples whatever the order of the pool's rows. ``needs`` names the
    indicators that it reads whatever its options are.
    """

    name: str
    choose: Choose
    needs: tuple[str, ...] = ()


def strategy(name: str, *, needs: tuple[str, ...] = ()) -> Callable[[Choose], Choose]:
    """Register the decorated function as the strategy ``name`` (see Strategy).

    Raises SelectionError when another function has the name already.
    """

    def register(choose: Choose) -> Choose:
        known = _STRATEGIES.get(name)
        if known is not None and _place(known.choose) != _place(choose):
            raise SelectionError(
                f"two strategies are called {name!r}: {_place(known.choose)} and {_place(choose)}"
            )
        _STRATEGIES[name] = Strategy(name, choose, needs)
        return choose

    return register


def _place(choose: Choose) -> str:
    return f"{choose.__module__}.{choose.__qualname__}"


def strategies() -> dict[str, Strategy]:
    """All strategies by name; imports the modules of the strategies folder."""
    for module in pkgutil.iter_modules(modules.__path__):
        importlib.import_module(f"{modules.__name__}.{module.name}")
    return dict(sorted(_STRATEGIES.items()))


def strategy_of(
    settings: StrategySettings, place: str = "selection"
) -> tuple[Strategy, dict[str, Any]]:
    """The strategy that ``settings`` name, and its checked options.

    Args:
        place: where in the profile the settings stand, for the error.

    Raises SelectionError for an unknown strategy or option (with the nearest known name), an
    option that is missing, or a value of the wrong kind.
    """
    known = strategies()
    if settings.strategy not in known:
        raise SelectionError(
            f"{place}.strategy: unknown strategy {settings.strategy!r}"
            f"{did_you_mean(settings.strategy, list(known))}; known: {', '.join(known)}"
        )
    found = known[settings.strategy]
    return found, _options(found, settings.options, f"{place}.options")


def _options(found: Strategy, given: Mapping[str, Any], place: str) -> dict[str, Any]:
    accepted = list(inspect.signature(found.choose).parameters.values())[3:]
    names = [parameter.name for parameter in accepted]
    for option in given:
        if option not in names:
            known = f"known: {', '.join(names)}" if names else "it has none"
            raise SelectionError(
                f"{place}.{option}: {found.name} has no such option"
                f"{did_you_mean(option, names)}; {known}"
            )
    for parameter in accepted:
        if parameter.default is inspect.Parameter.empty and parameter.name not in given:
            raise SelectionError(f"{place}.{parameter.name}: {found.name} needs this option")
    kinds = get_type_hints(found.choose, include_extras=True)
    checked = {}
    for option, value in given.items():
        try:
            checked[option] = TypeAdapter(kinds[option]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise SelectionError(f"{place}.{option}: {message} (found {value!r})") from error
    return checked


def check_strategies(study: Study) -> None:
    """Check the strategies of ``selection`` and ``validation`` when the profile is read.

    Raises SelectionError when one is unknown, has wrong options, or reads an indicator that the
    profile does not compute; or when a published rule does.
    """
    places: dict[str, StrategySettings] = {"selection": study.selection}
    if study.validation is not None:
        arms = study.validation.strategies
        places |= {f"validation.strategies.{name}": arm for name, arm in arms.items()}
    known = list(study.scoring.indicators)
    if study.rule.source != "fitted":
        lacking = [n for n in published_rule(study.rule.source).indicators if n not in known]
        if lacking:
            raise SelectionError(
                f"rule.source: {study.rule.source} reads {', '.join(lacking)}, which the profile "
                f"does not compute; scoring.indicators has: {', '.join(known)}"
            )
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
