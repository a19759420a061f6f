"""len_in and len_out: tokens of the instruction (with its input) and of the response.

Of a conversation, of all that others say and of all replies.
"""

import numpy as np

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import indicator


@indicator("instruction_length", version=1, uses=("tokenizer",), text="conversation")
def instruction_length(batch: ScoringBatch) -> np.ndarray:
    """Tokens of instruction and input under the base model's tokenizer, uncut."""
    return _tokens(batch, batch.all_prompts)


@indicator("response_length", version=1, uses=("tokenizer",), text="conversation")
def response_length(batch: ScoringBatch) -> np.ndarray:
    """Tokens of the response under the base model's tokenizer, uncut."""
    return _tokens(batch, batch.all_responses)


def _tokens(batch: ScoringBatch, texts: list[str]) -> np.ndarray:
    ids = batch.models.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return np.array([len(i) for i in ids], dtype=float)
