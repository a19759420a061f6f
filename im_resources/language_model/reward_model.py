"""Reward models: one number for how good a response is to a prompt.

Any sequence-classification model with one logit, and Open-Assistant's (``gpt_neox_reward.py``).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from im_resources.language_model.batching import by_length
from im_resources.language_model.frozen import load_frozen, padded, weights_folder
from im_resources.language_model.gpt_neox_reward import GPTNeoXRewardConfig, GPTNeoXRewardModel
from im_resources.language_model.loading import ModelError
from im_resources.language_model.precision import native_bf16
from im_resources.language_model.prompts import Encoded
from im_resources.study import ModelSource

MAX_TOKENS = 2048
# What is kept of a prompt's end when prompt and response together are too long.
MIN_PROMPT_TOKENS = 256


def reward_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that multiplies it, else float32. It changes scores: part of their key."""
    fast = device.type == "cuda" and native_bf16()
    return torch.bfloat16 if fast else torch.float32


@dataclass(frozen=True)
class LoadedRewardModel:
    """A reward model in memory. ``limit``: most tokens of prompt and response together."""

    model: Any
    tokenizer: Any
    limit: int

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], tokens_per_batch: int
    ) -> np.ndarray:
        """The raw logit of each response to its prompt, float64 [responses].

        Args:
            tokens_per_batch: most tokens in one forward pass, padding included.
        """
        rows = [self.encode(p, r) for p, r in zip(prompts, responses, strict=True)]
        lengths = [Encoded(tuple(row["input_ids"]), ()) for row in rows]
        logits = np.empty(len(rows))
        pad = 0 if self._is_oasst else self.model.config.get_text_config().pad_token_id
        # Without a padding token such a model takes the last position, wherever that is.
        for items in by_length(lengths, tokens_per_batch if pad is not None else 1):
            logits[items] = self._forward([rows[i] for i in items], pad or 0)
        return logits

    def encode(self, prompt: str, response: str) -> dict[str, list[int]]:
        """The model's inputs for one pair: input_ids, and token_type_ids if it has such.

        Of a pair that is too long, the prompt loses its start down to MIN_PROMPT_TOKENS (half of
        the limit for a model of short texts), then the response loses its end.
        """
        if self._is_oasst:
            return {"input_ids": self._oasst_ids(prompt, response)}
        keep = min(MIN_PROMPT_TOKENS, self.limit // 2)
        row = self._layout(prompt, response)
        while (excess := len(row["input_ids"]) - self.limit) > 0:
            spare = len(self._offsets(prompt)) - keep
            if spare > 0:
                prompt = self._without_start(prompt, min(excess, spare))
            elif response:
                response = self._without_end(response, excess)
            elif prompt:
                prompt = self._without_start(prompt, excess)
            else:
                raise ModelError(f"the chat template alone is longer than {self.limit} tokens")
            row = self._layout(prompt, response)
        return row

    @property
    def _is_oasst(self) -> bool:
        return isinstance(self.model, GPTNeoXRewardModel)

    def _oasst_ids(self, prompt: str, response: str) -> list[int]:
        """As in training, also in that the cut takes the marks at the outer ends with it.

        https://github.com/LAION-AI/Open-Assistant/blob/main/model/model_training/custom_datasets/ranking_collator.py
        """
        said = self.tokenizer(f"<|prompter|>{prompt}<|endoftext|>")["input_ids"]
        answer = self.tokenizer(f"<|assistant|>{response}<|endoftext|>")["input_ids"]
        room = max(MIN_PROMPT_TOKENS, self.limit - len(answer))
        return list(said[-room:] + answer[: self.limit - room])

    def _layout(self, prompt: str, response: str) -> dict[str, list[int]]:
        """The uncut inputs: chat template, else a pair of segments, else one text."""
        if self.tokenizer.chat_template:
            turns = [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": response},
            ]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False)
            row = self.tokenizer(text, add_special_tokens=False)
        elif self.tokenizer.sep_token is not None:  # BERT and its kin were trained on pairs
            row = self.tokenizer(prompt, response)
        else:
            row = self.tokenizer(f"{prompt}\n\n{response}")
        return {k: v for k, v in row.items() if k in ("input_ids", "token_type_ids")}

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of the text starts and ends in it, in characters."""
        row = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(row["offset_mapping"])

    def _without_start(self, text: str, tokens: int) -> str:
        ends = [end for _, end in self._offsets(text)]
        return text[max(1, ends[tokens - 1]) :] if tokens < len(ends) else ""

    def _without_end(self, text: str, tokens: int) -> str:
        starts = [start for start, _ in self._offsets(text)]
        return text[: min(len(text) - 1, starts[-tokens])] if tokens < len(starts) else ""

    def _forward(self, rows: list[dict[str, list[int]]], pad: int) -> np.ndarray:
        ids, mask = padded([row["input_ids"] for row in rows], pad, self.model.device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in rows[0]:
            types = [row["token_type_ids"] for row in rows]
            inputs["token_type_ids"], _ = padded(types, 0, self.model.device)
        with torch.inference_mode():
            logits = self.model(**inputs).logits
        return logits[:, 0].double().cpu().numpy()


def load_reward_model(source: ModelSource, device: torch.device) -> LoadedRewardModel:
    """Load a reward model: float32 on a CPU; on a GPU bf16 where that computes it natively.

    Raises ModelError when it cannot be found or read, is no safetensors, or has not one logit.
    """
    from transformers import AutoModelForSequenceClassification

    folder = weights_folder(source)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {folder / 'config.json'}: {error}") from error
    oasst = config.get("model_type") == GPTNeoXRewardConfig.model_type
    architecture = GPTNeoXRewardModel if oasst else AutoModelForSequenceClassification
    if oasst and config.get("pooling", "last") != "last":
        raise ModelError(f"{folder} pools by {config['pooling']!r}; only 'last' is known")
    model, tokenizer = load_frozen(folder, architecture, reward_dtype(device), device)
    if oasst:
        return LoadedRewardModel(model, tokenizer, MAX_TOKENS)
    if model.config.num_labels != 1:
        raise ModelError(f"{folder} has {model.config.num_labels} logits; a reward model has one")
    text = model.config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or MAX_TOKENS
    limit = min(MAX_TOKENS, tokenizer.model_max_length, positions)
    return LoadedRewardModel(model, tokenizer, limit)
