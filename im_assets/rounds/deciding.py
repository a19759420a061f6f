"""Whether a round is made: while the rule's error where it selects falls, by the point estimate.

The estimates of a few sets are noisy, so a stop is no proof that nothing more is to be learned; the
interval and verdict beside each change say what is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from im_assets.rounds.errors import Errors
from im_assets.rule.model import Rule


@dataclass(frozen=True)
class Decision:
    """Whether a round is made, and why, or why not, in a sentence."""

    goes_on: bool
    why: str


def decided(before: Sequence[Errors | None], rule: Rule) -> Decision:
    """Whether the round after ``before`` is made.

    Args:
        before: the errors of the rounds before, in order; None of one that was stopped.
        rule: that of the round.
    """
    number = len(before) + 1
    if (stopped := next((i + 1 for i, e in enumerate(before) if e is None), None)) is not None:
        return Decision(False, f"the rounds ended before round {stopped}")
    if not rule.indicators:
        why = f"the rule of round {number} has no indicator, so it selects nothing"
        return Decision(False, why)
    if number <= 2:
        return Decision(True, "the first two rounds are always made")
    earlier, last = (errors.rmse for errors in before[-2:] if errors is not None)
    told = (
        f"the rule's error on the sets of round {number - 1}, {last:.4g}, is "
        f"{'below' if last < earlier else 'not below'} that of round {number - 2}, {earlier:.4g}, "
        "by the point estimates"
    )
    return Decision(last < earlier, told)
