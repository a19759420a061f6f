"""From verdicts to win, tie or lose, and how often there is each.

Two orders that contradict each other are a tie, and are counted as position bias. A pair without a
verdict in either order is no tie: it is left out of every share, and counted apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from im_assets.judging.comparing import Comparison, Letter
from im_resources.turns import TURNS, read_turns, transcript

Outcome = Literal["win", "tie", "lose"]
OUTCOMES: tuple[Outcome, ...] = ("win", "tie", "lose")
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
    """``count`` of ``total`` and their share; None of nothing.

    Without an interval: what several finetunes answer to one instruction is not independent.
    """

    count: int
    total: int

    @property
    def share(self) -> float | None:
        return self.count / self.total if self.total else None


@dataclass(frozen=True)
class Tally:
    """How the comparisons came out; what they say about the arms is a ``NetScore``."""

    shares: dict[Outcome, Rate]
    position_bias: Rate
    not_judged: int


def tally(outcomes: Sequence[str | None], biased: Sequence[bool | None]) -> Tally:
    """Count the outcomes (None: not judged) and whether each pair's orders contradict."""
    judged = [o for o in outcomes if isinstance(o, str)]
    n = len(judged)
    return Tally(
        shares={name: Rate(judged.count(name), n) for name in OUTCOMES},
        position_bias=Rate(list(biased).count(True), n),
        not_judged=len(outcomes) - n,
    )
