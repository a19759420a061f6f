"""What all comparisons say about the two arms: a net score with one interval, and a verdict by it.

The score is the share of wins less that of losses, over pairs of finetunes (each of the first arm
with one of the second) and instructions. Its interval has to hold for new finetunes and for new
instructions: both spreads are added (see components), on Fisher's z scale, on which the score of a
pair is normal though it ends at -1 and 1.

Three things would make words out of nothing, by simulation (tests/judging/test_net_score.py), and
are seen to. Few instructions that all agree have no spread: one win and one loss are added to them
(Agresti & Coull 1998). One pair does not tell what another finetune would have changed. And near
the ends of the scale all pairs look alike, however much their finetunes differ: there, with fewer
than eight of them, nothing is told.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from im_assets.common.components import Component, half_width

POINTS = {"win": 1.0, "tie": 0.0, "lose": -1.0}
ONE_SIDED, PAIRS = 0.8, 8

Verdict = Literal["better", "worse", "not distinguishable", "cannot tell"]
Reason = Literal["one pair", "one-sided", "few instructions"]


@dataclass(frozen=True)
class NetScore:
    """Net ``score`` of the first arm in [-1, 1], with its 95 % interval for new finetunes and new
    instructions; ``finetune_sd`` and ``instruction_sd`` are its standard errors from either.

    ``verdict`` on the first arm; where that is ``cannot tell``, ``reason`` says why and there is no
    interval: ``one pair`` of finetunes, ``few instructions`` (one), or ``one-sided`` (see module).
    """

    score: float
    low: float | None
    high: float | None
    finetune_sd: float | None
    instruction_sd: float | None
    pairs: int
    instructions: int
    verdict: Verdict
    reason: Reason | None = None


def net_score(judged: pd.DataFrame) -> NetScore | None:
    """The net score of the first arm; None when nothing was judged.

    Args:
        judged: one row a comparison: seed (of the pair of finetunes), eval_id, and outcome of the
            first arm: win, tie, lose, or null (not judged, and left out).
    """
    rows = judged.assign(points=judged["outcome"].map(POINTS)).dropna(subset=["points"])
    if rows.empty:
        return None
    counts = rows.groupby("seed")["points"].size().to_numpy()
    # Shrunk as if a win and a loss more were there, since a score of 1 has no z.
    scores = rows.groupby("seed")["points"].sum().to_numpy() / (counts + 2)
    each = rows.groupby("eval_id")["points"].mean().to_numpy()
    z = np.arctanh(scores)
    middle = float(z.mean())
    slope = 1 - np.tanh(middle) ** 2  # of tanh, which brings z back
    finetunes = Component.of_mean(z)
    added = Component.of_mean(np.concatenate([each, [1.0, -1.0]])).variance
    instructions = Component(added / slope**2, len(each) - 1)
    score = float(rows["points"].mean())
    reason: Reason | None = None
    if len(scores) < 2:
        reason = "one pair"
    elif len(each) < 2:
        reason = "few instructions"
    elif float(np.abs(scores).mean()) > ONE_SIDED and len(scores) < PAIRS:
        reason = "one-sided"
    low = high = None
    verdict: Verdict = "cannot tell"
    if reason is None:
        half = half_width([finetunes, instructions])
        low, high = float(np.tanh(middle - half)), float(np.tanh(middle + half))
        verdict = "better" if low > 0 else "worse" if high < 0 else "not distinguishable"
        # The shrunk score is the middle; the plain one may lie outside where few were judged.
        low, high = min(low, score), max(high, score)
    return NetScore(
        score,
        low,
        high,
        float(np.sqrt(finetunes.variance) * slope) if len(scores) > 1 else None,
        float(np.sqrt(added)) if len(each) > 1 else None,
        len(scores),
        len(each),
        verdict,
        reason,
    )
