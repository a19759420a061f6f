"""The registry of indicator backends.

A backend is a function in a module of ``im_assets/scoring/indicators/`` under the ``@indicator``
decorator; a profile line ``scoring.indicators.<name>: <backend>`` puts it to use. Adding an indicator
is one file and one line.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from im_assets.scoring import indicators
from im_assets.scoring.batch import Models, ScoringBatch
from im_resources.study import ScoringSettings, did_you_mean, fingerprint

Score = Callable[..., np.ndarray]
_BACKENDS: dict[str, "Backend"] = {}


class IndicatorError(ValueError):
    """An indicator that cannot be computed as the profile asks; says which and what would do."""


@dataclass(frozen=True)
class Backend:
    """How an indicator is computed.

    ``version`` changes when the same text would get another number; ``uses`` names the models it
    reads, whose fingerprints enter the cache key; ``layer`` asks the base model's pass for that
    layer's hidden states; ``scope`` is "mixture" for a property of the set (KNN-i), whose function
    takes the mixture's embeddings instead of a batch.
    """

    name: str
    score: Score
    version: int
    uses: tuple[str, ...] = ()
    layer: int | None = None
    scope: Literal["example", "mixture"] = "example"


@dataclass(frozen=True)
class Indicator:
    """A backend under the name and options that the profile gives it."""

    name: str
    backend: Backend
    options: dict[str, Any]

    def fingerprint(self, models: Models) -> str:
        """The key of its cached scores: code version, options, and the models it reads."""
        used = [models.fingerprint(name) for name in self.backend.uses]
        return fingerprint(self.backend.name, self.backend.version, self.options, used)

    def score(self, batch: ScoringBatch) -> np.ndarray:
        """One finite number per example of the batch, float64 [examples].

        Raises IndicatorError when the backend returns another shape or a value that is not finite.
        """
        values = np.asarray(self.backend.score(batch, **self.options), dtype=float)
        if values.shape != (len(batch.examples),):
            raise IndicatorError(
                f"indicator {self.name!r} ({self.backend.name}) returned shape {values.shape} for "
                f"{len(batch.examples)} examples"
            )
        bad = ~np.isfinite(values)
        if bad.any():
            example = batch.examples["example_id"].iloc[int(np.argmax(bad))]
            raise IndicatorError(
                f"indicator {self.name!r} ({self.backend.name}) is {values[bad][0]} for example "
                f"{example}; a backend has to return a finite number"
            )
        return values


def indicator(
    name: str,
    *,
    version: int,
    uses: tuple[str, ...] = (),
    layer: int | None = None,
    scope: Literal["example", "mixture"] = "example",
) -> Callable[[Score], Score]:
    """Register the decorated function as the backend ``name`` (see Backend for the arguments)."""

    def register(score: Score) -> Score:
        _BACKENDS[name] = Backend(name, score, version, uses, layer, scope)
        return score

    return register


@cache
def backends() -> dict[str, Backend]:
    """All backends by name; imports the modules of the indicators folder on first use."""
    for module in pkgutil.iter_modules(indicators.__path__):
        importlib.import_module(f"{indicators.__name__}.{module.name}")
    return dict(sorted(_BACKENDS.items()))


def chosen(settings: ScoringSettings) -> list[Indicator]:
    """The profile's indicators, in its order.

    Raises IndicatorError for an unknown backend, with the nearest known name.
    """
    known = backends()
    for name, wanted in settings.indicators.items():
        if wanted.backend not in known:
            raise IndicatorError(
                f"scoring.indicators.{name}: unknown backend {wanted.backend!r}"
                f"{did_you_mean(wanted.backend, list(known))}; known: {', '.join(known)}"
            )
    return [Indicator(n, known[w.backend], dict(w.options)) for n, w in settings.indicators.items()]
