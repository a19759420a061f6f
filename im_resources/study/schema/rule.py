"""The regression, and what it predicts."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from im_resources.study.schema.base import Name, Positive, Settings

# Simplest first: of several that predict as well, an earlier one is taken.
Shape = Literal["line", "ridge", "elastic_net", "additive", "boosting"]


class TargetSettings(Settings):
    """What the rule predicts (paper: the logarithm of the evaluation loss)."""

    measure: Name = Field("loss", description="Name of a measure")
    scale: Literal["log", "logit", "identity"] | None = Field(
        None, description="What of the measure is regressed; default: the measure's own"
    )
    direction: Literal["lower", "higher"] | None = Field(
        None, description="Which is the better data; default: the measure's own"
    )


class RuleSettings(Settings):
    """How the rule is fitted (paper: stepwise least squares), or which ready one is applied."""

    ADDED: ClassVar[Mapping[str, Any]] = {
        "path": None, "transform": "none", "winsorize": False, "shapes": ("line",),
    }  # fmt: skip

    source: Literal["fitted", "published_v1", "published_v2", "file"] = Field(
        "fitted",
        description="fitted: on this study's mixtures; published_v1, published_v2: the paper's "
        "coefficients, which hold only for its base and reward model; file: the rule in `path`. A "
        "rule that is not fitted here needs no `data.candidates` (docs/rule.md)",
    )
    path: str | None = Field(
        None,
        description="For `source: file`: the quality_rule.json of another study; ${VARIABLES} "
        "expand",
    )
    target: TargetSettings = Field(
        TargetSettings(),
        description="What the rule predicts: a measure's name, or a block (paper: the log loss)",
    )
    points: tuple[Literal["mixtures", "univariate", "validation", "rounds"], ...] = Field(
        ("mixtures",),
        min_length=1,
        description="The experiments whose trials the rule is fitted on; validation: the "
        "selections that were measured for earlier rules; rounds: those of `mining`",
    )
    transform: Literal["none", "log"] = Field(
        "log",
        description="The scale on which a fitted rule reads indicators, of every example before "
        "the mean is taken; log: sign(v) ln(1 + |v|); none: as they are (paper). A ready rule "
        "brings its own",
    )
    winsorize: bool = Field(
        True,
        description="Whether a fitted rule cuts an example's indicators to the range that the "
        "points cover, since of what lies outside it says nothing (paper: false)",
    )
    shapes: tuple[Shape, ...] = Field(
        ("line",),
        min_length=1,
        description="What the rule may be: a line (paper), a line of all indicators that is "
        "shrunk (ridge, elastic_net), a sum of smooth curves (additive), or of steps by gradient "
        "boosting (LightGBM). Of several, the simplest whose cross-validated error is within one "
        "standard error of the least",
    )
    choose: Literal["all_subsets", "stepwise"] = Field(
        "all_subsets",
        description="all_subsets: the subset of indicators with the least cross-validated error; "
        "stepwise: the paper's, by `criterion`",
    )
    criterion: Literal["p_value", "aic", "bic"] = Field(
        "p_value", description="stepwise: what decides that an indicator enters or leaves"
    )
    direction: Literal["forward", "backward", "both"] = Field(
        "both",
        description="stepwise: indicators only enter, only leave (starting with all), or both",
    )
    p_enter: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="stepwise by p_value: an indicator with a lower p-value enters"
    )
    p_remove: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.10,
        description="stepwise by p_value: an indicator with a higher p-value leaves; at least "
        "`p_enter`",
    )
    max_indicators: Positive | None = Field(
        None, description="Most indicators that may enter; default: one for every five mixtures"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.95, description="Level of the intervals of the rule and its evidence"
    )
    standard_errors: Literal["HC3", "classical"] = Field(
        "HC3",
        description="Of the coefficients. HC3 holds when the errors' spread differs between "
        "mixtures; classical: the textbook's, narrower",
    )
    bootstrap: Positive = Field(
        200, description="Resamples of the mixtures, each choosing its indicators anew"
    )
    permutations: Annotated[int, Field(ge=19)] = Field(
        200,
        description="Shuffles of the losses, which tell what chance alone gives; of fewer than 19 "
        "none could tell a rule from chance",
    )

    @field_validator("target", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"measure": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _file_of_the_rule(self) -> Self:
        if (self.source == "file") != (self.path is not None):
            raise ValueError(
                "`path`, of a quality_rule.json, goes with `source: file` and only with it"
            )
        return self

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if len(set(self.shapes)) < len(self.shapes):
            raise ValueError(f"`shapes` names one twice: {', '.join(self.shapes)}")
        bent = [shape for shape in self.shapes if shape in ("additive", "boosting")]
        if bent and not self.winsorize:
            raise ValueError(
                f"`shapes` has {', '.join(bent)}, and a curve says nothing beyond the points that "
                "it was fitted on: leave it out, or set `winsorize: true`"
            )
        return self

    @model_validator(mode="after")
    def _no_cycle(self) -> Self:
        if self.p_remove < self.p_enter:
            raise ValueError("p_remove below p_enter lets an indicator enter and leave forever")
        return self
