"""The registry of indicator backends.

A backend is a function under the ``@indicator`` decorator: in a module of
``im_assets/scoring/indicators/``, or in one that the profile names as a plugin. A profile line
``scoring.indicators.<name>: <backend>`` puts it to use (docs/extending.md).
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from im_assets.scoring.batch import Models, ScoringBatch
from im_assets.scoring.random_sets import mean_over_random_sets
from im_resources.registry import Registry
from im_resources.study import ScoringSettings, Study, fingerprint

Score = Callable[..., np.ndarray | float]
Registered = TypeVar("Registered", bound=Score)
Scope = Literal["example", "set"]
Text = Literal["exchange", "conversation"]
Column = Literal["number", "text"]
Columns = Callable[[Mapping[str, Any]], dict[str, Column]]
# What the tables of examples have already.
TAKEN = (
    "example_id", "source", "line", "instruction", "input", "output", "category", "since_version",
    "file", "own_id", "turns", "not_text", "language", "language_confidence",
)  # fmt: skip


class IndicatorError(ValueError):
    """An indicator that cannot be computed as the profile asks; says which and what would do."""


class SetTooSmall(IndicatorError):
    """A set of too few examples for one of its properties; raised by a set-level backend."""


@dataclass(frozen=True)
class Backend:
    """How an indicator is computed.

    Attributes:
        score: of scope "example", a function of a ScoringBatch that gives one number an example
            [examples]. Of scope "set", a function of the set's unit vectors [members, dimensions]
            that gives a number a member, whose mean is the set's, or one number for the set.
        version: changes when the same text would get another number.
        uses: the models that it reads, whose fingerprints enter the cache key.
        layer: asks the base model's pass for that layer's hidden states.
        scope: what has the property: one example, or a set of them (KNN-i).
        weights: a file of its own, whose content enters the cache key too.
        expected: of scope "set", gives what each example of a pool would have within a random set:
            ``expected(embeddings, size, **options)``, [examples]; default: an average over random
            sets.
        columns: gives the columns of the source's rows that it reads, from its options.
        content: gives a hash of the files that its options name, which enters the cache key too.
        cached: whether scores are kept in the score cache. Off where they are read, not computed.
        text: what of a conversation it reads: the last exchange, or all turns.
        whole: of scope "example", given all examples that lack it at once, after the other
            indicators, and not chunk by chunk: what asks somebody else, whose budget and failures
            are those of the whole run. Only a complete answer goes to the score cache, so that it
            keeps what it finds in the batch's warehouse.
        told: gives what there is to say of the scores of some examples beside them, as metadata
            that a warning repeats: ``told(example_ids, models, warehouse, **options)``.
    """

    name: str
    score: Score
    version: int
    uses: tuple[str, ...] = ()
    layer: int | None = None
    scope: Scope = "example"
    weights: Path | None = None
    expected: Callable[..., np.ndarray] | None = None
    columns: Columns | None = None
    content: Callable[[Mapping[str, Any]], str] | None = None
    cached: bool = True
    text: Text = "exchange"
    whole: bool = False
    told: Callable[..., dict[str, float]] | None = None


BACKENDS = Registry[Backend]("indicator backend", "im_assets.scoring.indicators", IndicatorError)


@dataclass(frozen=True)
class Indicator:
    """A backend under the name and options that the profile gives it."""

    name: str
    backend: Backend
    options: dict[str, Any]

    def fingerprint(self, models: Models) -> str:
        """The key of its scores: code version, options, and the models and files it reads."""
        used = [models.fingerprint(name) for name in self.backend.uses]
        if self.backend.weights is not None:
            used.append(hashlib.sha256(self.backend.weights.read_bytes()).hexdigest())
        if self.backend.content is not None:
            used.append(self.backend.content(self.options))
        return fingerprint(self.backend.name, self.backend.version, self.options, used)

    def score(self, batch: ScoringBatch) -> np.ndarray:
        """One finite number per example of the batch, float64 [examples].

        Raises IndicatorError when the backend returns another shape or a value that is not finite.
        """
        count = len(batch.examples)
        values = self._checked(
            self.backend.score(batch, **self.options), [(count,)], f"{count} examples"
        )
        bad = ~np.isfinite(values)
        if bad.any():
            example = batch.examples["example_id"].iloc[int(np.argmax(bad))]
            raise IndicatorError(
                f"indicator {self.name!r} ({self.backend.name}) is {values[bad][0]} for example "
                f"{example}; a backend has to return a finite number"
            )
        return values

    def of_set(self, vectors: np.ndarray) -> float:
        """The set-level indicator of one set.

        Args:
            vectors: unit vectors of the members, [members, dimensions].

        Raises IndicatorError when the set is too small, or the backend returns another shape or a
        value that is not finite.
        """
        return float(self._of_members(vectors).mean())

    def expected(self, vectors: np.ndarray, size: int) -> np.ndarray:
        """What each example of a pool would have within a random set, float64 [examples].

        The scale on which a rule was fitted: a set-level property of the whole pool, which is far
        larger than the sets, would be an extrapolation.

        Args:
            vectors: unit vectors of the pool, [examples, dimensions].
            size: examples of the set.

        Raises IndicatorError as ``of_set`` does.
        """
        if self.backend.expected is None:
            return mean_over_random_sets(self._of_members, vectors, size)
        values = self.backend.expected(vectors, size, **self.options)
        return self._finite(
            self._checked(values, [(len(vectors),)], f"a pool of {len(vectors)}"), "within a pool"
        )

    def _of_members(self, vectors: np.ndarray) -> np.ndarray:
        values = self.backend.score(vectors, **self.options)
        shapes: list[tuple[int, ...]] = [(len(vectors),), ()]
        found = self._checked(values, shapes, f"a set of {len(vectors)}")
        return self._finite(found, f"for a set of {len(vectors)}")

    def _checked(self, found: Any, shapes: list[tuple[int, ...]], given: str) -> np.ndarray:
        values = np.asarray(found, dtype=float)
        if values.shape not in shapes:
            raise IndicatorError(
                f"indicator {self.name!r} ({self.backend.name}) returned shape {values.shape} for "
                f"{given}"
            )
        return values

    def _finite(self, values: np.ndarray, where: str) -> np.ndarray:
        if not np.isfinite(values).all():
            raise IndicatorError(
                f"indicator {self.name!r} ({self.backend.name}) is not finite {where}; a backend "
                "has to return finite numbers"
            )
        return values


def indicator(
    name: str,
    *,
    version: int,
    uses: tuple[str, ...] = (),
    layer: int | None = None,
    scope: Scope = "example",
    weights: Path | None = None,
    expected: Callable[..., np.ndarray] | None = None,
    columns: Columns | None = None,
    content: Callable[[Mapping[str, Any]], str] | None = None,
    cached: bool = True,
    text: Text = "exchange",
    whole: bool = False,
    told: Callable[..., dict[str, float]] | None = None,
) -> Callable[[Registered], Registered]:
    """Register the decorated function as the backend ``name`` (see Backend for the arguments).

    Raises IndicatorError when another function has the name already, or ``scope`` is unknown.
    """
    if scope not in ("example", "set"):
        raise IndicatorError(f"indicator {name!r}: scope is 'example' or 'set', not {scope!r}")
    if scope == "set":
        uses = tuple(dict.fromkeys([*uses, "embedding"]))

    def register(score: Registered) -> Registered:
        backend = Backend(
            name, score, version, uses, layer, scope, weights, expected, columns, content, cached,
            text, whole, told,
        )  # fmt: skip
        BACKENDS.add(name, backend, score)
        return score

    return register


def chosen(settings: ScoringSettings) -> list[Indicator]:
    """The profile's indicators, in its order.

    Raises IndicatorError for an unknown backend or option (with the nearest known name), an option
    that is missing, or a value of the wrong kind.
    """
    found = []
    for name, wanted in settings.indicators.items():
        field = f"scoring.indicators.{name}"
        backend = BACKENDS.get(wanted.backend, field)
        options = BACKENDS.options(backend.score, wanted.options, f"{field}.options", skip=1)
        found.append(Indicator(name, backend, options))
    return found


def columns_read(settings: ScoringSettings) -> dict[str, Column]:
    """The columns of the sources' rows that the profile's indicators read, beside the texts.

    Raises IndicatorError for one that cannot be kept beside the texts, or that is read as two
    kinds.
    """
    found: dict[str, Column] = {}
    for indicator in chosen(settings):
        columns = indicator.backend.columns(indicator.options) if indicator.backend.columns else {}
        for column, kind in columns.items():
            if not re.fullmatch(r"\w[\w-]*", column, re.ASCII) or column.lower() in TAKEN:
                raise IndicatorError(
                    f"scoring.indicators.{indicator.name}: the column {column!r} cannot be kept: "
                    f"its name may have letters, digits, _ and -, and none of {', '.join(TAKEN)}"
                )
            if found.setdefault(column, kind) != kind:
                raise IndicatorError(
                    f"scoring.indicators.{indicator.name}: the column {column!r} is read as "
                    f"{kind}, and as {found[column]} by another indicator"
                )
    return found


def check_models(study: Study) -> None:
    """Raises IndicatorError when an indicator reads a model that the profile does not set."""
    for indicator in chosen(study.scoring):
        for use in indicator.backend.uses:
            role = "base" if use == "tokenizer" else use
            if role == "judge":  # no model of the study's: see im_assets.judging.askers
                continue
            if getattr(study.models, role) is None:
                raise IndicatorError(
                    f"scoring.indicators.{indicator.name}: {indicator.backend.name} reads "
                    f"models.{role}, which the profile does not set; set it, or leave the "
                    "indicator out"
                )


def reads_tokens(settings: ScoringSettings) -> bool:
    """Whether an indicator reads what the base model does: prompt and response, cut to fit."""
    return any("base" in indicator.backend.uses for indicator in chosen(settings))


def set_level(settings: ScoringSettings) -> list[Indicator]:
    """Those of the profile's indicators that are properties of a set, in its order."""
    return [indicator for indicator in chosen(settings) if indicator.backend.scope == "set"]
