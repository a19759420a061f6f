"""What was cut of encoded instructions to fit into `models.max_length`, as counts."""

from collections.abc import Sequence

import pandas as pd

from im_resources.language_model.prompts import Encoded, replies_of

# Of each instruction; their sums are of many. ``responses`` are those that the loss is over.
COUNTS = {
    "instructions": ("bigint", "Instructions or conversations"),
    "prompts_cut": ("bigint", "Of them, those whose prompt lost tokens"),
    "turns_left_out": ("bigint", "Turns of conversations that were left out whole"),
    "responses": ("bigint", "Responses that the loss is over, those cut to nothing too"),
    "responses_cut": ("bigint", "Of them, those that lost tokens"),
    "responses_left_out": ("bigint", "Of those, the ones that lost all: replies of turns left out"),
    "response_tokens": ("bigint", "Tokens of the responses before the cut"),
    "response_tokens_cut": ("bigint", "Of them, those that were cut"),
}
# Beside them, of each instruction: tokens of its prompt and responses that are left, each once.
LENGTH = "tokens"


def counted(encoded: Sequence[Encoded]) -> pd.DataFrame:
    """The counts of each instruction, in the order given: int64 columns ``COUNTS``, ``LENGTH``."""
    rows = []
    for one in encoded:
        lost, replies = one.lost, list(replies_of(one))
        tokens_lost = lost.reply_tokens + sum(lost.outputs)
        rows.append(
            (
                1,
                int(lost.prompt > 0),
                lost.turns,
                len(replies) + lost.replies,
                sum(end > 0 for end in lost.outputs) + lost.replies,
                lost.replies,
                sum(map(len, replies)) + tokens_lost,
                tokens_lost,
                one.length,
            )
        )
    return pd.DataFrame(rows, columns=[*COUNTS, LENGTH], dtype="int64")
