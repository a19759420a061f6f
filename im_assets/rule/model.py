"""The rule as a value: log loss = constant + sum of coefficient x indicator (Cao et al. 2023, v1).

Another target than the log loss takes its place where `rule.target` names one.

A rule is data, not a fitted-model object: it can be compared, written as JSON and read by a later
version of the platform. A number that is not defined (the F of a rule without indicators, the
standard errors of a published rule) is None, never NaN, so that nothing can be computed from it by
accident.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator

from im_assets.common.numbers import numeric
from im_assets.experiments.measures import Direction, Scale
from im_assets.rule.regression import Dropped, Uselessness
from im_assets.rule.target import PAPER, Target
from im_resources.study import fingerprint

CONSTANT = "constant"

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
    t: Number | None = None
    p: Number | None = None
    ci_low: Number | None = None
    ci_high: Number | None = None
    vif: Number | None = Field(None, description="Variance inflation factor; None: the constant")


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
        "unstable_selection", "published", "unspecified", "unproven", "not_as_fitted",
    ]  # fmt: skip
    indicator: str | None = None
    note: str


class UsedModel(Record):
    """A model that the numbers of a rule came from."""

    role: Literal["base", "embedding", "reward", "unieval"]
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
    confidence: Number | None = Field(None, description="Level of the confidence intervals")
    r2: Number | None = None
    adj_r2: Number | None = None
    f: Number | None = None
    f_p: Number | None = None
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

    @property
    def predicts(self) -> Target:
        """What the rule predicts, with its words and columns."""
        return Target(self.target, self.scale, self.direction)

    @property
    def intercept(self) -> float:
        """The constant, in the target's units (log loss)."""
        return self.constant.estimate

    @property
    def indicators(self) -> tuple[str, ...]:
        """The indicators that the rule reads; empty when none entered."""
        return tuple(c.name for c in self.coefficients)

    @property
    def id(self) -> str:
        """The rule's fingerprint: of what it predicts. Verdicts about it carry it."""
        terms = [(term.name, term.estimate) for term in (self.constant, *self.coefficients)]
        return fingerprint("rule", self.source, terms)

    @property
    def formula(self) -> str:
        """The rule as text, e.g. ``log_loss = 1.068 - 0.1498 reward``."""
        terms = "".join(
            f" {'-' if c.estimate < 0 else '+'} {abs(c.estimate):.4g} {c.name}"
            for c in self.coefficients
        )
        return f"{self.predicts.column} = {self.intercept:.4g}{terms}"

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """The predicted target (log loss) of each row, shape (rows,).

        Raises ValueError when an indicator of the rule is missing from ``frame`` or not finite:
        a NaN prediction would sort silently to one end of a ranking.
        """
        try:
            values = numeric(frame, self.indicators)
        except ValueError as error:
            raise ValueError(f"the rule ({self.source}) cannot predict: {error}") from error
        # One indicator after the other: a matrix product, and a sum over an axis, add up in an
        # order that depends on the number of rows, and a prediction must not depend on the others.
        predicted = np.full(len(frame), self.intercept)
        for term, column in zip(self.coefficients, values.T, strict=True):
            predicted += term.estimate * column
        return predicted

    def badness(self, frame: pd.DataFrame) -> np.ndarray:
        """The prediction with the sign that makes lower the better data, shape (rows,): what to
        rank by, whatever the target's direction. Raises as `predict` does."""
        return self.predicts.sign * self.predict(frame)
