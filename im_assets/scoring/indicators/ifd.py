"""ifd: how little the instruction helps with the response (Cherry LLM, arXiv 2308.12032).

Instruction-Following Difficulty is the loss of the response given its instruction over the loss of
the response alone. Near 1 the instruction hardly helps: the example has something to teach. Above 1
it hinders, which the paper takes for a response that does not belong to its instruction.
"""

import numpy as np

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import indicator


@indicator("ifd", version=1, uses=("base",), text="conversation")
def instruction_following_difficulty(batch: ScoringBatch) -> np.ndarray:
    """Loss of the response given the instruction / loss of the response alone, positive.

    The paper scores with a model finetuned briefly on the pool; this is the base model itself. Both
    losses are over the same tokens. "Alone" stands for a prompt of one token, the one that begins a
    text (that ends one, where the tokenizer has no other), so that the first token counts too. One
    more pass of the base model over short rows. Of a conversation, each reply stands alone.
    """
    from im_resources.language_model.losses import output_losses
    from im_resources.language_model.prompts import Encoded, replies_of

    study, tokenizer = batch.models.study, batch.models.base.tokenizer
    begin = tokenizer.bos_token_id
    if begin is None:
        begin = tokenizer.eos_token_id
    bare = [Encoded((begin,), tuple(replies_of(example))) for example in batch.encoded]
    given = batch.base_pass
    alone = output_losses(batch.models.replica, bare, study.scoring.tokens_per_batch)
    nll, tokens = (np.bincount(alone.item, each) for each in (alone.nll, alone.tokens))
    return (given.nll / given.tokens) / (nll / tokens)
