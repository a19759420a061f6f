"""UniEval (Zhong et al. 2022, arXiv:2210.07197): a T5 that answers yes-or-no questions about text.

Prompts and score are those of https://github.com/maszhongming/UniEval (utils.py, metric/scorer.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from im_resources.language_model.batching import by_length
from im_resources.language_model.frozen import load_frozen, padded, weights_folder
from im_resources.language_model.loading import ModelError
from im_resources.language_model.prompts import Encoded
from im_resources.study import ModelSource

MAX_TOKENS = 1024

Dimension = Literal["naturalness", "coherence", "understandability"]
QUESTIONS: dict[Dimension, str] = {
    "naturalness": "Is this a natural response in the dialogue?",
    "coherence": "Is this a coherent response given the dialogue history?",
    "understandability": "Is this an understandable response in the dialogue?",
}


def question(dimension: Dimension, response: str, history: str) -> str:
    """The input of the dialogue evaluator; only coherence looks at the history."""
    text = f"question: {QUESTIONS[dimension]} </s> response: {response}"
    return f"{text} </s> dialogue history: {history}" if dimension == "coherence" else text


def dialogue_history(turns: Sequence[str]) -> str:
    """What was said before the response, as the evaluator was trained to read it."""
    return "\n".join(turns) + "\n\n"


@dataclass(frozen=True)
class LoadedUniEval:
    """The evaluator in memory. ``yes``, ``no``: first token ids of the two answers."""

    model: Any
    tokenizer: Any
    yes: int
    no: int

    def score(self, questions: Sequence[str], tokens_per_batch: int) -> np.ndarray:
        """P(Yes) / (P(Yes) + P(No)) as the answer's first word, float64 [questions], in [0, 1].

        Args:
            tokens_per_batch: most tokens of questions in one forward pass, padding included.
        """
        rows = list(map(_cut, self.tokenizer(list(questions))["input_ids"]))
        lengths = [Encoded(tuple(row), ()) for row in rows]
        scores = np.empty(len(rows))
        for items in by_length(lengths, tokens_per_batch):
            scores[items] = self._forward([rows[i] for i in items])
        return scores

    def encode(self, text: str) -> list[int]:
        """Token ids, at most MAX_TOKENS: what is longer loses its end, but not the closing </s>."""
        return _cut(self.tokenizer(text)["input_ids"])

    def _forward(self, rows: list[list[int]]) -> np.ndarray:
        config = self.model.config
        ids, mask = padded(rows, config.pad_token_id, self.model.device)
        start = torch.full((len(rows), 1), config.decoder_start_token_id, device=ids.device)
        with torch.inference_mode():
            logits = self.model(
                input_ids=ids, attention_mask=mask, decoder_input_ids=start, use_cache=False
            ).logits[:, 0]
            margin = logits[:, self.yes].double() - logits[:, self.no].double()
            return torch.sigmoid(margin).cpu().numpy()


def _cut(ids: list[int]) -> list[int]:
    return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]


def load_unieval(source: ModelSource, device: torch.device) -> LoadedUniEval:
    """Load the evaluator, in float32 on every device.

    Not in bf16: good text scores crowd near 1, and a bf16 logit of 10 is known to 1/16 only.

    Raises ModelError when it cannot be found or read, is no safetensors, or is no T5.
    """
    from transformers import T5ForConditionalGeneration

    folder = weights_folder(source)
    model, tokenizer = load_frozen(folder, T5ForConditionalGeneration, torch.float32, device)
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("Yes", "No"))
    if yes == no:
        raise ModelError(f"the tokenizer in {folder} does not tell Yes from No")
    return LoadedUniEval(model, tokenizer, yes, no)
