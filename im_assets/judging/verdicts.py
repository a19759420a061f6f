"""From verdicts to win, tie or lose, and what they say about the two models.

Two orders that contradict each other are a tie, and are counted as position bias. A pair without a
verdict in either order is no tie: it is left out of every share, and counted apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from im_assets.judging.comparing import Comparison, Letter
from im_resources.turns import TURNS, read_turns, transcript

Outcome = Literal["win", "tie", "lose"]
OUTCOMES: tuple[Outcome, ...] = ("win", "tie", "lose")
CONFIDENCE = 0.95
# Of the second order, in which the second arm's answer is A, seen from the first arm.
_TURNED: dict[Letter, Letter] = {"A": "B", "B": "A", "tie": "tie"}
_POINTS: dict[Letter, int] = {"A": 1, "tie": 0, "B": -1}


def outcome(order_1: Letter, order_2: Letter) -> Outcome:
    """The first arm wins both orders, or one and ties the other: win; likewise lose; else tie.

    Args:
        order_1: the verdict with the first arm's answer as A.
        order_2: the verdict with the second arm's answer as A.
    """
    points = _POINTS[order_1] + _POINTS[_TURNED[order_2]]
    return "win" if points > 0 else "lose" if points < 0 else "tie"


def contradict(order_1: Letter, order_2: Letter) -> bool:
    """Whether the judge prefers a position: A in both orders, or B in both."""
    return order_1 == order_2 != "tie"


@dataclass(frozen=True)
class Verdict:
    """One order's verdict, or why there is none."""

    letter: Letter | None
    problem: str | None = None


def orders(pair: Mapping[Any, Any]) -> tuple[Comparison, Comparison]:
    """A pair (instruction, input, first_answer, second_answer, and turns of a conversation) in both
    orders."""
    first, second = pair["first_answer"], pair["second_answer"]
    turns = read_turns(pair.get(TURNS))
    context = pair["input"] if turns is None else transcript(turns)
    return (
        Comparison(pair["instruction"], context, first, second),
        Comparison(pair["instruction"], context, second, first),
    )


def judged_pairs(
    pairs: pd.DataFrame, verdicts: Mapping[Comparison, Verdict], first: str, second: str
) -> pd.DataFrame:
    """The pairs with order_1 and order_2 (which arm won, or tie), outcome, position_bias, problem.

    Args:
        pairs: columns as ``orders`` reads them.
        verdicts: of both orders of every pair.
        first: name of the arm whose answer is A in order_1.
        second: name of the other.
    """
    rows = []
    for pair in pairs.to_dict("records"):
        one, two = (verdicts[c] for c in orders(pair))
        names: dict[Letter | None, str | None] = {"A": first, "B": second, "tie": "tie", None: None}
        problems = [
            f"order {number}: {verdict.problem}"
            for number, verdict in enumerate((one, two), 1)
            if verdict.letter is None
        ]
        both = None if one.letter is None or two.letter is None else (one.letter, two.letter)
        rows.append(
            (
                names[one.letter],
                names[None if two.letter is None else _TURNED[two.letter]],
                outcome(*both) if both else None,
                contradict(*both) if both else None,
                "; ".join(problems) or None,
            )
        )
    columns = ["order_1", "order_2", "outcome", "position_bias", "problem"]
    return pairs.join(pd.DataFrame(rows, columns=columns, index=pairs.index, dtype=object))


@dataclass(frozen=True)
class Rate:
    """``count`` of ``total`` and their share, with its Wilson interval; None of nothing."""

    count: int
    total: int
    share: float | None
    low: float | None
    high: float | None


def rate(count: int, total: int) -> Rate:
    """A share with its Wilson score interval (95 %), which is right for small numbers too."""
    from statsmodels.stats.proportion import proportion_confint

    if total == 0:
        return Rate(count, total, None, None, None)
    low, high = proportion_confint(count, total, alpha=1 - CONFIDENCE, method="wilson")
    share = count / total
    # Rounding may leave an end on the wrong side of the share when that is 0 or 1.
    return Rate(count, total, share, min(float(low), share), max(float(high), share))


@dataclass(frozen=True)
class Tally:
    """What all pairs say together.

    ``difference``: share of wins minus share of losses, with its bootstrap interval over pairs.
    ``p``: exact sign test of wins against losses, two-sided; ties say nothing.
    ``verdict`` on the first arm: ``better``, ``worse`` or ``not distinguishable`` (p ≥ 0.05).
    """

    shares: dict[Outcome, Rate]
    position_bias: Rate
    not_judged: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float
    verdict: str


def tally(
    outcomes: Sequence[str | None], biased: Sequence[bool | None], resamples: int = 2000
) -> Tally:
    """Count the outcomes (None: not judged) and whether each pair's orders contradict."""
    from scipy.stats import binomtest

    judged = [o for o in outcomes if isinstance(o, str)]
    counts = {name: judged.count(name) for name in OUTCOMES}
    wins, losses, n = counts["win"], counts["lose"], len(judged)
    difference = low = high = None
    if n:
        difference = (wins - losses) / n
        generator = np.random.Generator(np.random.PCG64(0))
        drawn = generator.multinomial(n, [counts[o] / n for o in OUTCOMES], size=resamples)
        ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        low, high = map(float, np.quantile((drawn[:, 0] - drawn[:, 2]) / n, ends))
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    better = "better" if wins > losses else "worse"
    return Tally(
        shares={name: rate(count, n) for name, count in counts.items()},
        position_bias=rate(list(biased).count(True), n),
        not_judged=len(outcomes) - n,
        difference=difference,
        difference_low=low,
        difference_high=high,
        p=p,
        verdict=better if p < 1 - CONFIDENCE else "not distinguishable",
    )
