"""The evaluation loss, the paper's measure: mean cross-entropy over reference outputs, in nats."""

from typing import Literal

import pandas as pd

from im_assets.experiments.evaluation import overall
from im_assets.experiments.measures import measure

UNIT = "nats/token"


@measure("loss", version=1, reads="losses", scale="log", direction="lower", unit=UNIT)
def loss(rows: pd.DataFrame, weighting: Literal["token", "instruction"]) -> float:
    """Evaluation loss, weighted as `evaluation.weighting` says (paper: L(M_ft, D_eval))."""
    return overall(rows, weighting)


@measure("token_loss", version=1, reads="losses", scale="log", direction="lower", unit=UNIT)
def token_loss(rows: pd.DataFrame) -> float:
    """Evaluation loss over all response tokens together."""
    return overall(rows, "token")


@measure("instruction_loss", version=1, reads="losses", scale="log", direction="lower", unit=UNIT)
def instruction_loss(rows: pd.DataFrame) -> float:
    """Evaluation loss as the mean over instructions of the mean over their outputs."""
    return overall(rows, "instruction")
