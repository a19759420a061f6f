"""The rule as a value: log loss = constant + sum of coefficient x indicator (Cao et al. 2023, v1).

Another target than the log loss takes its place where `rule.target` names one.

Its indicators are on a scale (`Rule.transform`), and of an example cut to what the points cover
(`Rule.winsorize`). So a rule predicts in two ways, which are not to be mixed up: of points, whose
indicators are means on that scale already, and of examples, which hold values as they are.

A rule is data, not a fitted-model object: it can be compared, written as JSON and read by a later
version of the platform. A number that is not defined (the F of a rule without indicators, the
standard errors of a published rule) is None, never NaN, so that nothing can be computed from it by
accident.
"""

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from im_assets.common.numbers import numeric
from im_assets.experiments.measures import Direction, Scale
from im_assets.rule.regression import Dropped, Uselessness
from im_assets.rule.shapes.sample import Bend
from im_assets.rule.target import PAPER, Target
from im_assets.rule.transform import Transform, scaled, transformed
from im_resources.study import Shape, fingerprint

CONSTANT = "constant"
CHANCE = 0.05  # the p of the permutation test up to which a rule is beyond chance

Number = Annotated[float, Field(allow_inf_nan=False)]
Source = Literal["fitted", "published_v1", "published_v2"]


class Record(BaseModel):
    """Base of the rule's parts: immutable, no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Coefficient(Record):
    """One term of a rule; ``estimate`` is in the target (log loss) per unit of the indicator."""

    name: str
    estimate: Number
    std_error: Number | None = None
    ci_low: Number | None = None
    ci_high: Number | None = None
    vif: Number | None = Field(None, description="Variance inflation factor; None: the constant")
    low: Number | None = Field(
        None, description="Least value over the points, on the rule's scale; None: not known"
    )
    high: Number | None = Field(None, description="Highest value over the points")


class Curve(Record):
    """A term of a rule that bends: what an indicator adds to the target, told at points ``at``.

    Between two of them it is the straight line, beyond the outermost level. Of ``steps``, ``value``
    has one more than ``at``: it is constant up to and with each point.
    """

    name: str
    at: tuple[Number, ...] = Field(description="Ascending, on the rule's scale")
    value: tuple[Number, ...]
    steps: bool = False
    low: Number = Field(description="Least value over the points, on the rule's scale")
    high: Number = Field(description="Highest value over the points")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.value) != len(self.at) + self.steps or not self.at:
            raise ValueError(
                f"the curve of {self.name} has {len(self.value)} values for {len(self.at)} points"
            )
        if any(b <= a for a, b in pairwise(self.at)):
            raise ValueError(f"the points of the curve of {self.name} do not ascend")
        return self

    def best(self, sign: int) -> tuple[float, Literal["more", "less", "near"]]:
        """Where over the points the curve, times ``sign``, is lowest, and whether that is at the
        upper end of their range, the lower, or in between."""
        x = np.linspace(self.low, self.high, 201)
        y = sign * self.bend.of(x)
        at = float(x[y == y.min()].mean())  # the middle, where many are equally good
        ends = 0.1 * (self.high - self.low)
        if at > self.high - ends or y[-1] == y.min():
            return at, "more"
        return at, "less" if at < self.low + ends or y[0] == y.min() else "near"

    @property
    def bend(self) -> Bend:
        """The curve to compute with."""
        return Bend(np.array(self.at), np.array(self.value), self.steps)


class ShapeError(Record):
    """A shape that the rule could have had, and its error on mixtures left out by folds."""

    shape: Shape
    rmse: Number = Field(description="In the target's units")
    less: Number = Field(0.0, description="Mean squared error of the line less its own")
    less_error: Number = Field(0.0, description="Standard error of that difference")


class Step(Record):
    """One line of the path to the rule; the statistics are those of the model after the step.

    ``best`` is the best of all subsets with as many indicators as ``step`` says; ``indicator`` then
    lists them. The other actions are those of a stepwise search.
    """

    step: int
    action: Literal["drop", "start", "enter", "remove", "best"]
    indicator: str | None = None
    value: Number | None = Field(
        None, description="The criterion: p-value, AIC or BIC; for `best` leave-one-out RMSE"
    )
    p: Number | None = Field(None, description="p of the indicator that entered or was removed")
    aic: Number | None = None
    bic: Number | None = None
    r2: Number | None = None
    reason: Uselessness | None = Field(None, description="Why a dropped indicator adds nothing")
    note: str = ""

    @classmethod
    def of_dropped(cls, indicator: str, why: Dropped) -> Self:
        """The line of an indicator that was dropped before the search."""
        return cls(step=0, action="drop", indicator=indicator, reason=why.kind, note=why.note)


class Caution(Record):
    """A reason to distrust a rule: its ``kind``, the indicator that it is about, and a sentence.

    The last two are of a ready rule where it is applied (see provenance).
    """

    kind: Literal[
        "dropped", "no_indicator", "selection_ignored", "few_mixtures", "collinear",
        "unstable_selection", "chance", "published", "unspecified", "unproven", "not_as_fitted",
    ]  # fmt: skip
    indicator: str | None = None
    note: str


class AgainstChance(Record):
    """A fit, and what it comes to where nothing is there to be found."""

    value: Number
    low: Number = Field(description="5 % point of the fits of shuffled losses")
    high: Number = Field(description="95 % point")
    p: Number = Field(description="Share of shuffles that fit as well, the study counted as one")


class Chance(Record):
    """The permutation test of a rule (see `chance.permutation_test`)."""

    shuffles: int
    r2: AgainstChance
    loo_r2: AgainstChance = Field(description="On mixtures left out; what the verdict is by")


class UsedModel(Record):
    """A model that the numbers of a rule came from."""

    role: Literal["base", "embedding", "reward", "unieval", "judge"]
    name: str = Field(description="As a profile names it")
    weights: str = Field("", description="Fingerprint of its weights; '' where not known")
    prompt: str = Field("", description="Of a base: the prompt template that it was read with")
    max_length: int | None = Field(None, description="Of a base: tokens of prompt and response")
    precision: str = Field("", description="Of a base: its number format")


class UsedIndicator(Record):
    """How an indicator of a rule was computed."""

    name: str
    backend: str
    version: int | None = Field(None, description="Of the backend; None where not known")
    options: Mapping[str, Any] = Field(default_factory=dict)
    weights: str = Field(
        "", description="SHA-256 of the backend's own weights; '' where it has none"
    )
    uses: tuple[str, ...] = Field((), description="The models that it reads")


class Rule(Record):
    """A linear rule for what a model finetuned on a mixture comes to: its log evaluation loss, or
    another measure (``target``) on a ``scale``, whose better end is ``direction``.

    ``n`` counts mixtures. The ``loo_*`` numbers come from leaving one mixture out: ``loo_spearman``
    and ``loo_rmse`` (in the target's units) with the selection redone in every fold,
    ``loo_spearman_fixed`` with this rule's indicators kept, which flatters the rule.
    ``loo_predictions`` maps each seed to the target predicted without it.
    """

    source: Source
    # The three are not in documents written when the target was always the log loss.
    target: str = Field(PAPER.measure, description="The measure that the rule predicts")
    scale: Scale = Field(PAPER.scale, description="What of the measure is regressed")
    direction: Direction = Field(PAPER.direction, description="Which values are the better ones")
    reference: str = Field("", description="Where the rule comes from")
    constant: Coefficient
    coefficients: tuple[Coefficient, ...] = ()
    # Not in documents before version 5, of rules that could only be a line.
    shape: Shape = Field("line", description="What the rule is: a line, or one that bends")
    curves: tuple[Curve, ...] = Field((), description="The terms that are no straight line")
    shapes: tuple[ShapeError, ...] = Field((), description="The shapes compared, simplest first")
    # Not in documents written before these two were recorded.
    choose: Literal["all_subsets", "stepwise"] | None = Field(
        None, description="How the indicators were chosen"
    )
    standard_errors: Literal["HC3", "classical"] | None = None
    n: int | None = None
    points_id: str = Field("", description="Fingerprint of the table that it was fitted on")
    values_id: str = Field("", description="Fingerprint of the indicators' versions and measures")
    trials: tuple[str, ...] = Field((), description="The trials that it was fitted on")
    made_with: str = Field("", description="Fingerprint of their settings, base and evaluation set")
    # Not in documents before version 3, nor where the points were made with other models.
    fitted_by: str = Field("", description="The study that it was fitted by")
    indicators_used: tuple[UsedIndicator, ...] = ()
    models_used: tuple[UsedModel, ...] = ()
    set_size: int | None = Field(None, description="Examples of the mixtures it was fitted on")
    # Not in documents before version 4, of rules that read every indicator as it is.
    transform: Transform = Field("none", description="The scale of its indicators")
    winsorize: bool = Field(
        False, description="Whether an example's indicators are cut to what the points cover"
    )
    chance: Chance | None = Field(None, description="What shuffled losses come to")
    confidence: Number | None = Field(None, description="Level of the confidence intervals")
    r2: Number | None = None
    adj_r2: Number | None = None
    f: Number | None = None
    aic: Number | None = None
    bic: Number | None = None
    residual_std_error: Number | None = None
    loo_spearman: Number | None = None
    # Not in documents from before it had an interval.
    loo_spearman_low: Number | None = None
    loo_spearman_high: Number | None = None
    loo_spearman_fixed: Number | None = None
    loo_rmse: Number | None = None
    loo_folds_without_slope: int | None = None
    loo_predictions: Mapping[str, Number] = Field(default_factory=dict)
    candidates: tuple[str, ...] = Field((), description="The indicators that could have entered")
    path: tuple[Step, ...] = ()
    warnings: tuple[Caution, ...] = ()

    @field_validator("warnings", mode="before")
    @classmethod
    def _of_sentences(cls, warnings: Any) -> Any:
        # Documents of version 1 hold sentences only.
        return [Caution(kind="unspecified", note=w) if isinstance(w, str) else w for w in warnings]

    @model_validator(mode="after")
    def _limits(self) -> Self:
        lacking = [t.name for t in self.terms if t.low is None or t.high is None]
        if self.winsorize and lacking:
            raise ValueError(f"winsorize needs low and high of {', '.join(lacking)}")
        if self.curves and not self.winsorize:
            raise ValueError("a rule with curves says nothing beyond its points: winsorize it")
        return self

    @property
    def predicts(self) -> Target:
        """What the rule predicts, with its words and columns."""
        return Target(self.target, self.scale, self.direction)

    @property
    def intercept(self) -> float:
        """The constant, in the target's units (log loss)."""
        return self.constant.estimate

    @property
    def terms(self) -> tuple[Coefficient | Curve, ...]:
        """All that is added to the constant."""
        return (*self.coefficients, *self.curves)

    @property
    def indicators(self) -> tuple[str, ...]:
        """The indicators that the rule reads; empty when none entered."""
        return tuple(term.name for term in self.terms)

    @property
    def beyond_chance(self) -> bool | None:
        """Whether shuffled losses rarely give a rule that does as well on mixtures left out. None:
        nobody knows, since it was not fitted here or earlier than this was tested, or the rule
        ranks nothing."""
        if self.source != "fitted" or self.chance is None or not self.terms:
            return None
        return self.chance.loo_r2.p <= CHANCE

    @property
    def id(self) -> str:
        """The rule's fingerprint: of what it predicts. Verdicts about it carry it."""
        terms = [(term.name, term.estimate) for term in (self.constant, *self.coefficients)]
        limits = [(term.low, term.high) for term in self.terms] if self.winsorize else []
        # A rule that reads every indicator as it is has the id that it had before others could be,
        # and so has one without curves.
        reading: list[Any] = []
        if self.transform != "none" or limits:
            reading.append((self.transform, limits))
        reading += [(c.name, c.at, c.value, c.steps) for c in self.curves]
        return fingerprint("rule", self.source, terms, *reading)

    @property
    def formula(self) -> str:
        """The rule as text, e.g. ``log_loss = 1.068 - 0.1498 reward``."""
        terms = "".join(
            f" {'-' if c.estimate < 0 else '+'} {abs(c.estimate):.4g} "
            f"{scaled(c.name, self.transform)}"
            for c in self.coefficients
        )
        bends = "".join(f" + f({scaled(curve.name, self.transform)})" for curve in self.curves)
        return f"{self.predicts.column} = {self.intercept:.4g}{terms}{bends}"

    def predict_points(self, points: pd.DataFrame) -> np.ndarray:
        """The predicted target (log loss) of sets whose indicators are means on the rule's scale
        already, as `indicator_table` holds them, shape (rows,).

        Raises ValueError when an indicator of the rule is missing from ``points`` or not finite:
        a NaN prediction would sort silently to one end of a ranking.
        """
        return self._predicted(self._values(points))

    def predict_examples(self, examples: pd.DataFrame) -> np.ndarray:
        """The predicted target of examples, of whose indicators the frame holds the values as they
        are, shape (rows,). Raises as `predict_points` does."""
        return self._predicted(self.read(examples))

    def badness(self, examples: pd.DataFrame) -> np.ndarray:
        """The prediction of examples with the sign that makes lower the better data, shape (rows,):
        what to rank by, whatever the target's direction. Raises as `predict_points` does."""
        return self.predicts.sign * self.predict_examples(examples)

    def read(self, examples: pd.DataFrame) -> np.ndarray:
        """The examples' indicators as the rule reads them: on its scale, and cut to what its points
        cover where it is `winsorize`, shape (rows, indicators). Raises as `predict_points` does."""
        values = np.array(transformed(self._values(examples), self.transform))  # a copy
        if self.winsorize:
            for place, term in enumerate(self.terms):
                values[:, place] = np.clip(values[:, place], term.low, term.high)
        return values

    def without(self, names: Collection[str]) -> Self:
        """The rule without the terms of some indicators."""
        kept = tuple(term for term in self.coefficients if term.name not in names)
        curves = tuple(curve for curve in self.curves if curve.name not in names)
        return self.model_copy(update={"coefficients": kept, "curves": curves})

    def _values(self, frame: pd.DataFrame) -> np.ndarray:
        try:
            return numeric(frame, self.indicators)
        except ValueError as error:
            raise ValueError(f"the rule ({self.source}) cannot predict: {error}") from error

    def _predicted(self, values: np.ndarray) -> np.ndarray:
        # One indicator after the other: a matrix product, and a sum over an axis, add up in an
        # order that depends on the number of rows, and a prediction must not depend on the others.
        predicted = np.full(len(values), self.intercept)
        for term, column in zip(self.terms, values.T, strict=True):
            if isinstance(term, Curve):
                predicted += term.bend.of(column)
            else:
                predicted += term.estimate * column
        return predicted
