"""len_in and len_out: tokens of the instruction (with its input) and of the response."""

import numpy as np

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import indicator


@indicator("instruction_length", version=1, uses=("tokenizer",))
def instruction_length(batch: ScoringBatch) -> np.ndarray:
    """Tokens of instruction and input under the base model's tokenizer, uncut."""
    return _tokens(batch, batch.prompts)


@indicator("response_length", version=1, uses=("tokenizer",))
def response_length(batch: ScoringBatch) -> np.ndarray:
    """Tokens of the response under the base model's tokenizer, uncut."""
    return _tokens(batch, list(batch.examples["output"]))


def _tokens(batch: ScoringBatch, texts: list[str]) -> np.ndarray:
    ids = batch.models.base.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return np.array([len(i) for i in ids], dtype=float)
