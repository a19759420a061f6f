"""What the rule predicts: a measure on a scale, and which end of it is the better one.

The paper's target is the logarithm of the evaluation loss. `rule.target` names any other measure;
everything that ranks, draws or judges follows what is said here.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from im_assets.experiments.measures import (
    Direction,
    Measure,
    MeasureError,
    Scale,
    measure_of,
    own_measure,
)
from im_resources.study import Study


def plural(label: str) -> str:
    """``log losses``, ``values of win rate``."""
    return f"{label}es" if label.endswith("loss") else f"values of {label}"


@dataclass(frozen=True)
class Target:
    """A measure, the scale on which it is regressed, and the direction of better data."""

    measure: str = "loss"
    scale: Scale = "log"
    direction: Direction = "lower"

    @classmethod
    def of(cls, study: Study) -> Self:
        """The target of `rule.target`, or of `runs`, with the measure's own scale and direction by
        default.

        Raises MeasureError for an unknown measure, or a published rule with another target.
        """
        asked, known = study.target, target_measure(study)
        target = cls(
            known.name, asked.scale or known.scale, asked.direction or known.direction
        )  # fmt: skip
        if study.rule.source.startswith("published") and target != cls():
            raise MeasureError(
                f"rule.target: {study.rule.source} predicts the log loss, and cannot predict the "
                f"{target.label}; leave rule.target out, or set rule.source: fitted"
            )
        return target

    @property
    def column(self) -> str:
        """The column of the points that is regressed: ``log_loss``, ``logit_exact_match``; the
        measure itself on the scale identity."""
        return self.measure if self.scale == "identity" else f"{self.scale}_{self.measure}"

    @property
    def title(self) -> str:
        """The label at the beginning of a sentence: ``Log loss``."""
        return self.label[0].upper() + self.label[1:]

    @property
    def predicted_column(self) -> str:
        """The column with the rule's value: ``predicted_log_loss``."""
        return f"predicted_{self.column}"

    @property
    def measure_label(self) -> str:
        """The measure in sentences: ``loss``, ``exact match``."""
        return self.measure.replace("_", " ")

    @property
    def noun(self) -> str:
        """The measure by its full name: ``evaluation loss``, ``exact match``."""
        return "evaluation loss" if self.measure == "loss" else self.measure_label

    @property
    def axis(self) -> str:
        """The measure with its unit, for an axis: ``evaluation loss (nats per token)``."""
        return f"{self.noun} (nats per token)" if self.noun.endswith("loss") else self.noun

    @property
    def label(self) -> str:
        """What is regressed, in words: ``log loss``, ``logit of exact match``, ``win rate``."""
        if self.scale == "logit":
            return f"logit of {self.measure_label}"
        return self.column.replace("_", " ")

    def columns(self, of: str) -> dict[str, tuple[str, str]]:
        """The columns of a table with the measure and the target ``of`` something, as schema."""
        found = {self.measure: ("double", f"{self.noun.capitalize()} of {of}")}
        if self.scale != "identity":
            words = {"log": "Its logarithm", "logit": "Its logit"}
            found[self.column] = ("double", words[self.scale])
        return found

    @property
    def plural(self) -> str:
        """Many of it in sentences: ``losses``, ``values of exact match``."""
        return plural(self.measure_label)

    @property
    def sign(self) -> int:
        """1 where lower is better, -1 where higher is: times a value, lower is better."""
        return 1 if self.direction == "lower" else -1

    @property
    def best(self) -> str:
        """``lowest`` or ``highest``."""
        return f"{self.direction[:-2]}est"

    @property
    def worst(self) -> str:
        """``highest`` or ``lowest``."""
        return "highest" if self.direction == "lower" else "lowest"

    @property
    def better_side(self) -> str:
        """Where better data lies on a horizontal axis: ``left`` or ``right``."""
        return "left" if self.direction == "lower" else "right"

    def transform(self, values: np.ndarray, n: np.ndarray | int | None = None) -> np.ndarray:
        """The measure's values on the target's scale, same shape.

        On the logit scale a share k/n of 0 or 1 becomes (k + 1/2) / (n + 1), whose logit is finite
        (Haldane 1956, Anscombe 1956); other shares stay as they are, and `inverse` gives them back.

        Args:
            n: of how many each value is a share.

        Raises ValueError for a value that the scale does not hold, with what would do.
        """
        values = np.asarray(values, dtype=float)
        if self.scale == "identity":
            return values
        if self.scale == "log":
            if not (values > 0).all():
                raise ValueError(
                    f"{self.measure} is {values.min():.4g} for some set: only positive values have "
                    "a logarithm; set rule.target.scale: identity"
                )
            return np.log(values)
        if ((values < 0) | (values > 1)).any():
            raise ValueError(
                f"{self.measure} lies between {values.min():.4g} and {values.max():.4g}: only "
                "shares between 0 and 1 have a logit; set rule.target.scale: identity"
            )
        ends = (values == 0) | (values == 1)
        if ends.any():
            if n is None:
                raise ValueError(
                    f"{self.measure} is 0 or 1 for some set, which has no logit, and is not known "
                    "to be a share of how many; set rule.target.scale: identity"
                )
            n = np.broadcast_to(np.asarray(n, dtype=float), values.shape)
            values = np.where(ends, (values * n + 0.5) / (n + 1), values)
        return np.log(values) - np.log1p(-values)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Values on the target's scale as the measure's own, same shape."""
        values = np.asarray(values, dtype=float)
        if self.scale == "identity":
            return values
        return np.exp(values) if self.scale == "log" else 1 / (1 + np.exp(-values))


PAPER = Target()  # the paper's: the log evaluation loss, lower is better


def target_measure(study: Study) -> Measure:
    """The measure of `rule.target`, or of `runs`. Raises MeasureError when there is none of the
    name."""
    if study.runs is not None:
        return own_measure(study.runs)
    return measure_of(study.rule.target.measure, study.evaluation, "rule.target")
