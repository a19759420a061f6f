"""reward (proxy): how close the response is in meaning to the instruction.

Stands in for a reward model where none is to be had offline. It tells answers to the question from
answers to another one very well, and scrambled answers hardly at all (figures: docs/indicators.md).
"""

import numpy as np

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import indicator


@indicator("embedding_cosine_proxy", version=1, uses=("embedding",))
def embedding_cosine(batch: ScoringBatch) -> np.ndarray:
    """Cosine of the sentence embeddings of prompt and response, in [-1, 1]."""
    prompts, outputs = np.split(batch.embeddings, 2, axis=1)
    return 2 * np.einsum("nd,nd->n", prompts, outputs)  # both halves are scaled by 1/√2
