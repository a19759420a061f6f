"""ppl: how surprised the base model is by the response, given the instruction."""

import numpy as np

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import indicator


@indicator("perplexity", version=1, uses=("base",), text="conversation")
def perplexity(batch: ScoringBatch) -> np.ndarray:
    """exp(mean negative log-likelihood of the response tokens given the instruction)."""
    return np.exp(batch.base_pass.nll / batch.base_pass.tokens)
