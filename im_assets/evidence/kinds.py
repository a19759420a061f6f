"""What each section of the evidence finds: its values, its verdict on them, and its sentence.

The thresholds of the verdicts, and the words of the sentences, are here and nowhere else.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from im_assets.evidence.findings import Finding
from im_assets.rule.fitting import HIGH_VIF
from im_assets.rule.model import CHANCE
from im_assets.rule.regression import Dropped, Uselessness

DOUBT = 0.05  # a p below it: an assumption of least squares is in doubt
FEWEST = 4  # mixtures for a rank correlation, and for a fit
FEWEST_FOR_CURVE = 12
WORTH = 0.05  # a gain in Spearman below this is not worth finetuning twice as many mixtures
SURE = 0.95  # of the models that the mixtures allow gain as much, to say yes


@dataclass(frozen=True, kw_only=True)
class Inclusion(Finding):
    """``value``: share of the resamples that choose the indicator, with Wilson's interval."""

    section: ClassVar[str] = "inclusion"
    in_rule: bool

    @property
    def verdict(self) -> Literal["in_rule", "not_in_rule"]:
        return "in_rule" if self.in_rule else "not_in_rule"

    @property
    def note(self) -> str:
        return "in the rule" if self.in_rule else "not in the rule"


@dataclass(frozen=True, kw_only=True)
class ResampledCoefficient(Finding):
    """``value``: the rule's estimate; low and high its percentile interval over the resamples that
    choose the indicator, so many as are ``chosen``, and ``same_sign`` the share of these in which
    it has the rule's sign. How often it is chosen at all is `Inclusion`."""

    section: ClassVar[str] = "coefficient"
    chosen: int
    same_sign: float | None

    @property
    def note(self) -> str:
        if not self.chosen:
            return "no resample chooses it"
        return (
            f"of the {self.chosen} resamples that choose it (inclusion), {self.same_sign:.0%} have "
            "this sign; the interval is theirs as well"
        )


@dataclass(frozen=True, kw_only=True)
class ShapeOfRule(Finding):
    """``value``: a shape's error on mixtures left out by folds; ``gain``: the line's mean squared
    error less its own, low and high one standard error from it; ``x``: share of the resamples that
    choose it."""

    section: ClassVar[str] = "shape"
    gain: float
    gain_low: float
    gain_high: float
    chosen: bool

    @property
    def verdict(self) -> Literal["chosen", "not_chosen"]:
        return "chosen" if self.chosen else "not_chosen"

    @property
    def note(self) -> str:
        if self.chosen:
            return "the simplest whose error is within one standard error of the least"
        return ""


@dataclass(frozen=True, kw_only=True)
class Permutation(Finding):
    """``value``: the study's fit; low and high the 5 and 95 % points of ``shuffles`` shuffles."""

    section: ClassVar[str] = "permutation"
    p: float
    shuffles: int

    @property
    def verdict(self) -> Literal["chance", "beyond_chance"]:
        return "beyond_chance" if self.p <= CHANCE else "chance"

    @property
    def note(self) -> str:
        often = "often" if self.verdict == "chance" else "rarely"
        return (
            f"chance alone {often} reaches this: p = {self.p:.3g} of {self.shuffles} shuffles with "
            "the choice of indicators redone"
        )


@dataclass(frozen=True, kw_only=True)
class LeftOut(Finding):
    """``value``: Spearman on a group's ``x`` mixtures by a rule of the others; ``all``: on all
    such predictions together. ``few``: too few in or outside of it; ``sloped``: whether the rule
    of the others has an indicator."""

    belong: ClassVar[str]
    few: bool = False
    sloped: bool = True

    @property
    def verdict(self) -> Literal["ranked", "nothing_ranked", "too_few", "undefined"]:
        if self.few:
            return "too_few"
        if not self.sloped:
            return "nothing_ranked"
        return "undefined" if self.value is None else "ranked"

    @property
    def note(self) -> str:
        if self.item == "all":
            return "too few mixtures" if self.few else "all of these predictions together"
        said = {
            "ranked": "ranked by a rule of the others",
            "nothing_ranked": "the rule of the others has no indicator and ranks nothing",
            "too_few": f"too few in or outside for a rank correlation ({FEWEST} are needed)",
            "undefined": "not defined: their predictions, or their losses, are all the same",
        }
        return f"{self.x:.0f} mixtures {self.belong}; {said[self.verdict]}"


@dataclass(frozen=True, kw_only=True)
class SourceLeftOut(LeftOut):
    """A source is left out with the mixtures in which it is the largest."""

    section: ClassVar[str] = "leave_one_source_out"
    belong: ClassVar[str] = "have most examples from it"


@dataclass(frozen=True, kw_only=True)
class ExperimentLeftOut(LeftOut):
    """An experiment is left out with all its points."""

    section: ClassVar[str] = "leave_one_experiment_out"
    belong: ClassVar[str] = "are its points"


Doubt = Literal["fine", "doubt", "undefined"]


@dataclass(frozen=True, kw_only=True)
class ResidualTest(Finding):
    """``value``: the statistic of a test of the residuals (breusch_pagan, shapiro_wilk)."""

    section: ClassVar[str] = "diagnostics"
    p: float | None = None

    @property
    def verdict(self) -> Doubt:
        if self.p is None:
            return "undefined"
        return "doubt" if self.p < DOUBT else "fine"

    @property
    def note(self) -> str:
        return _RESIDUAL_TESTS[self.item, self.verdict]


_RESIDUAL_TESTS: dict[tuple[str, Doubt], str] = {
    ("breusch_pagan", "doubt"): (
        "the errors' spread differs between mixtures: classical standard errors do not hold"
    ),
    ("breusch_pagan", "fine"): "no sign that the errors' spread differs between mixtures",
    ("breusch_pagan", "undefined"): (
        "the rule has no indicator that the spread of its errors could follow, or no errors"
    ),
    ("shapiro_wilk", "doubt"): (
        "the errors are not normal: p-values and intervals of few mixtures are approximate"
    ),
    ("shapiro_wilk", "fine"): "no sign that the errors are not normal",
    ("shapiro_wilk", "undefined"): "the rule has no errors that could be normal",
}


@dataclass(frozen=True, kw_only=True)
class LargestLeverage(Finding):
    """``value``: the leverage of ``seed``; ``mean`` is that of all mixtures."""

    section: ClassVar[str] = "diagnostics"
    item: str = "max_leverage"
    value: float
    seed: str
    mean: float

    @property
    def verdict(self) -> Doubt:
        return "doubt" if self.value > 2 * self.mean else "fine"

    @property
    def note(self) -> str:
        return f"{self.seed}; the mean is {self.mean:.2g}, and " + (
            "above twice that a mixture's indicators are unusual"
            if self.verdict == "doubt"
            else "no mixture has twice that"
        )


@dataclass(frozen=True, kw_only=True)
class LargestCooksDistance(Finding):
    """``value``: Cook's distance of ``seed``; NaN where the fit is exact."""

    section: ClassVar[str] = "diagnostics"
    item: str = "max_cooks_distance"
    value: float
    seed: str

    @property
    def verdict(self) -> Doubt:
        if self.value != self.value:
            return "undefined"
        return "doubt" if self.value > 1 else "fine"

    @property
    def note(self) -> str:
        said: dict[Doubt, str] = {
            "doubt": f"{self.seed}; above 1: without this mixture the rule would be another",
            "fine": f"{self.seed}; below 1: no single mixture decides the rule",
            "undefined": "the fit is exact: without a mixture it would be the same",
        }
        return said[self.verdict]


@dataclass(frozen=True, kw_only=True)
class Residual(Finding):
    """``value``: a mixture's residual at the fitted log loss ``x``."""

    section: ClassVar[str] = "residuals"
    leverage: float
    cooks_distance: float


@dataclass(frozen=True, kw_only=True)
class Inflation(Finding):
    """``value``: variance inflation factor of a candidate. ``dropped``: why it was not fitted;
    ``mixtures`` and ``fitted`` candidates decide whether a factor is defined."""

    section: ClassVar[str] = "vif"
    dropped: Dropped | None
    mixtures: int
    fitted: int

    @property
    def verdict(self) -> Literal["ok", "collinear", "undefined"] | Uselessness:
        if self.dropped is not None:
            return self.dropped.kind
        if self.value is None:
            return "undefined"
        return "collinear" if self.value > HIGH_VIF else "ok"

    @property
    def note(self) -> str:
        if self.dropped is not None:
            return self.dropped.note
        if self.value is None:
            return f"not defined: {self.mixtures} mixtures for {self.fitted} indicators"
        if self.verdict == "ok":
            return ""
        return (
            f"collinear: the other indicators explain {1 - 1 / self.value:.1%} of it, so its "
            "coefficient and sign cannot be read alone"
        )


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Finding):
    """``value``: mean Spearman on ``unseen`` mixtures of rules fitted on ``x``; low and high hold
    ``confidence`` of the ``splits``."""

    section: ClassVar[str] = "learning_curve"
    item: str = "spearman"
    splits: int
    unseen: int
    confidence: float

    @property
    def note(self) -> str:
        return (
            f"mean and {self.confidence:.0%} range over {self.splits} splits, {self.unseen} unseen"
        )


@dataclass(frozen=True, kw_only=True)
class CurveVerdict(Finding):
    """``value``: what going from ``mixtures`` to ``x``, twice as many, is expected to add to
    Spearman; None of too few mixtures. ``worth``: share of the models behind it that gain `WORTH`.
    ``spearman`` is that of the curve's last point."""

    section: ClassVar[str] = "learning_curve"
    item: str = "verdict"
    mixtures: int
    worth: float = 0.0
    fitted_on: int | None = None
    spearman: float | None = None
    spearman_low: float | None = None
    spearman_high: float | None = None

    @property
    def verdict(self) -> Literal["yes", "no", "cannot_tell"]:
        if self.low is None or self.high is None:
            return "cannot_tell"
        if self.worth >= SURE:
            return "yes"
        # Where nothing is ranked yet, no gain would only mean that nothing will be.
        return "no" if self.high < WORTH and not self._ranks_nothing else "cannot_tell"

    @property
    def note(self) -> str:
        if self.spearman is None:
            return (
                f"Cannot tell: {self.mixtures} mixtures are too few for a learning curve "
                f"({FEWEST_FOR_CURVE} are needed)."
            )
        if self.verdict != "yes" and self._ranks_nothing:
            answer = (
                "Cannot tell: these mixtures do not show that the rule ranks unseen ones at all, "
                "and so not what more of them would do."
            )
        else:
            answer = {
                "no": "No: twice as many mixtures would hardly rank better "
                f"(by less than {WORTH}).",
                "yes": "Yes: twice as many mixtures would raise the Spearman, most likely by "
                f"{WORTH} or more.",
                "cannot_tell": "Cannot tell: these mixtures allow a gain worth having "
                f"({WORTH} or more), and less.",
            }[self.verdict]
        words = (
            f"{answer} Spearman on unseen mixtures is {self.spearman:.2f} "
            f"({self.spearman_low:.2f} to {self.spearman_high:.2f}) from {self.fitted_on} mixtures"
        )
        if self.value is None:
            few = f"{self.mixtures} mixtures leave nothing to judge the indicators' strength by"
            return f"{words}; {few}."
        return (
            f"{words}; from {self.mixtures} to {2 * self.mixtures} it is expected to change by "
            f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f}) if a straight line holds."
        )

    @property
    def _ranks_nothing(self) -> bool:
        return self.spearman_low is not None and self.spearman_low <= 0


@dataclass(frozen=True, kw_only=True)
class RandomMixtures(Finding):
    """``value``: mean Spearman on unseen mixtures of rules fitted on ``x`` random ones."""

    section: ClassVar[str] = "design"
    item: str = "random"


@dataclass(frozen=True, kw_only=True)
class ChosenMixtures(Finding):
    """``value``: the same of ``x`` mixtures chosen for information, against which so many random
    ones are ``gain`` worse, and which ``replaces`` random ones equal. ``bound``: whether these are
    ``at_least`` or ``at_most`` so many, since no more or fewer were measured."""

    section: ClassVar[str] = "design"
    item: str = "d_optimal"
    gain: float
    gain_low: float
    gain_high: float
    replaces: float
    bound: Literal["at_least", "at_most"] | None

    @property
    def verdict(self) -> Literal["better", "not_distinguishable"]:
        return "better" if self.gain_low > 0 else "not_distinguishable"

    @property
    def note(self) -> str:
        numbers = (
            f"Spearman {self.gain:+.2f}, {self.gain_low:+.2f} to {self.gain_high:+.2f}, against "
            f"{self.x:.0f} random ones"
        )
        if self.verdict == "not_distinguishable":
            return (
                f"{self.x:.0f} chosen mixtures are not distinguishable from random ones ({numbers})"
            )
        more = {"at_least": " or more", "at_most": " or fewer", None: ""}[self.bound]
        return (
            f"{self.x:.0f} chosen mixtures do as well as {self.replaces:.0f} random ones{more} "
            f"({numbers})"
        )
