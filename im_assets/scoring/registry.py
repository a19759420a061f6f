"""The registry of indicator backends.

A backend is a function in a module of ``im_assets/scoring/indicators/`` under the ``@indicator``
decorator; a profile line ``scoring.indicators.<name>: <backend>`` puts it to use. Adding an
indicator is one file and one line.
"""

import hashlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
    takes the mixture's embeddings instead of a batch; ``weights`` is a file of its own, whose
    content enters the cache key too.
    """

    name: str
    score: Score
    version: int
    uses: tuple[str, ...] = ()
    layer: int | None = None
    scope: Literal["example", "mixture"] = "example"
    weights: Path | None = None


@dataclass(frozen=True)
class Indicator:
    """A backend under the name and options that the profile gives it."""

    name: str
    backend: Backend
    options: dict[str, Any]

    def fingerprint(self, models: Models) -> str:
        """The key of its cached scores: code version, options, and the models it reads."""
        used = [models.fingerprint(name) for name in self.backend.uses]
        if self.backend.weights is not None:
            used.append(hashlib.sha256(self.backend.weights.read_bytes()).hexdigest())
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
    weights: Path | None = None,
) -> Callable[[Score], Score]:
    """Register the decorated function as the backend ``name`` (see Backend for the arguments).

    Raises IndicatorError when another function has the name already.
    """

    def register(score: Score) -> Score:
        known = _BACKENDS.get(name)
        if known is not None and _place(known.score) != _place(score):
            raise IndicatorError(
                f"two backends are called {name!r}: {_place(known.score)} and {_place(score)}"
            )
        _BACKENDS[name] = Backend(name, score, version, uses, layer, scope, weights)
        return score

    return register


def _place(score: Score) -> str:
    return f"{score.__module__}.{score.__qualname__}"


def backends() -> dict[str, Backend]:
    """All backends by name; imports the modules of the indicators folder."""
    for module in pkgutil.iter_modules(indicators.__path__):
        importlib.import_module(f"{indicators.__name__}.{module.name}")
    return dict(sorted(_BACKENDS.items()))


def chosen(settings: ScoringSettings) -> list[Indicator]:
    """The profile's indicators, in its order.

    Raises IndicatorError for an unknown backend or option, with the nearest known name.
    """
    known = backends()
    for name, wanted in settings.indicators.items():
        if wanted.backend not in known:
            raise IndicatorError(
                f"scoring.indicators.{name}: unknown backend {wanted.backend!r}"
                f"{did_you_mean(wanted.backend, list(known))}; known: {', '.join(known)}"
            )
        accepted = list(inspect.signature(known[wanted.backend].score).parameters)[1:]
        for option in wanted.options:
            if option not in accepted:
                raise IndicatorError(
                    f"scoring.indicators.{name}.options.{option}: {wanted.backend} has no such "
                    f"option{did_you_mean(option, accepted)}; known: {', '.join(accepted)}"
                )
    return [Indicator(n, known[w.backend], dict(w.options)) for n, w in settings.indicators.items()]
