"""What the evidence says of decisions: the goals, the verdicts against them, and the sentences."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from im_assets.evidence.decisions import Noise, Reached, against_goal
from im_assets.evidence.findings import Finding

# DataDecide (Magnusson et al. 2025, arXiv 2504.11393): models of 150M parameters order so many
# pairs of corpora as models of 1B do.
ACCURACY_GOAL = 0.8
_BY = {
    "rule": "the rule, each trial left out",
    "indicator": "a line on this indicator alone, each trial left out",
    "published": "the paper's coefficients, not fitted here",
}


@dataclass(frozen=True, kw_only=True)
class Decision(Finding):
    """A number about the decisions of ``by``: the rule, an indicator, or a published rule."""

    by: Literal["rule", "indicator", "published"]

    @property
    def note(self) -> str:
        return _BY[self.by]


@dataclass(frozen=True, kw_only=True)
class DecisionAccuracy(Decision):
    """``value``: share of ``x`` pairs of trials that are ordered rightly."""

    section: ClassVar[str] = "decision_accuracy"
    goal: float = ACCURACY_GOAL

    @property
    def verdict(self) -> Reached:
        return against_goal(self.low, self.high, self.goal, above=True)

    @property
    def note(self) -> str:
        return f"{_BY[self.by]}; one half is a coin's toss"


@dataclass(frozen=True, kw_only=True)
class DecisionAccuracyBeyondNoise(Decision):
    """The same of the pairs that differ by more than noise. Without a goal: it leaves out the pairs
    on which one errs most."""

    section: ClassVar[str] = "decision_accuracy_beyond_noise"
    noise: Noise

    @property
    def note(self) -> str:
        return (
            f"{_BY[self.by]}; pairs that differ by more than {self.noise.difference:.3g}, "
            f"{_noise(self.noise)}"
        )


@dataclass(frozen=True, kw_only=True)
class Regret(Decision):
    """``value``: measured target of the trial predicted best, less the best measured; also as
    ``noise_sds``. The ``goal`` is one standard deviation of the noise.

    Against a stand-in the goal can be missed but not reached: the noise may be less.
    """

    section: ClassVar[str] = "regret"
    noise: Noise

    @property
    def goal(self) -> float:
        """In the target's units."""
        return self.noise.sd

    @property
    def noise_sds(self) -> float | None:
        """The regret in standard deviations of the noise."""
        known = self.value is not None and self.noise.sd > 0
        return self.value / self.noise.sd if known and self.value is not None else None

    @property
    def verdict(self) -> Reached:
        found = against_goal(self.low, self.high, self.goal, above=False)
        return "open" if found == "reached" and not self.noise.measured else found

    @property
    def note(self) -> str:
        return f"{_BY[self.by]}; the goal is less than one sd of the noise, {_noise(self.noise)}"


@dataclass(frozen=True, kw_only=True)
class Optimism(Decision):
    """``value``: error on trials left out less that on those fitted (root mean squares)."""

    section: ClassVar[str] = "optimism"


def _noise(noise: Noise) -> str:
    if noise.measured:
        return f"sd {noise.sd:.3g} between finetunes of the same set"
    return (
        f"for which the rule's error on trials left out ({noise.sd:.3g}) stands in, since no set "
        "was finetuned several times: the noise is no more than that"
    )
