"""A chunk of examples while it is scored: each model runs over it at most once.

Perplexity and the three probes read the same forward pass of the base model; the cosine proxy and
KNN-i read the same embeddings. They are computed when the first indicator asks for them.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from im_resources.gpu import GpuResource
from im_resources.language_model.template_registry import template_key
from im_resources.study import Study, fingerprint

# Changes when ScoringBatch.embeddings makes another vector of the same example.
PAIR_VERSION = 1


@dataclass(frozen=True)
class Models:
    """The study's models as scoring uses them: loaded on first use, replicated per thread."""

    study: Study
    gpu: GpuResource
    _local: threading.local
    _known: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study, gpu: GpuResource) -> "Models":
        return cls(study, gpu, threading.local())

    def fingerprint(self, name: str) -> str:
        """What identifies the outputs of a model: base, tokenizer, embedding, reward or unieval.

        Found once: it hashes the model's files, and the probes ask for it with every chunk.
        """
        if name not in self._known:
            self._known[name] = self._fingerprint(name)
        return self._known[name]

    def _fingerprint(self, name: str) -> str:
        from im_resources.language_model.loading import locate

        models = self.study.models
        if name == "base":
            base, prompt = self.gpu.base_fingerprint(self.study), template_key(models.prompt)
            return fingerprint(base, prompt, models.max_length)
        source = getattr(models, "base" if name == "tokenizer" else name)
        if source is None:
            raise ValueError(f"an indicator needs models.{name}, which the profile does not set")
        weights = locate(source)[2]
        if name == "embedding":
            return fingerprint(weights, PAIR_VERSION)
        if name == "reward":
            from im_resources.language_model.reward_model import reward_dtype

            return fingerprint(weights, str(reward_dtype(self.gpu.torch_device())))
        return weights

    @property
    def base(self) -> Any:
        return self.gpu.base_model(self.study)

    @property
    def replica(self) -> Any:
        """This thread's own modules over the shared base weights (forward hooks are per module)."""
        if not hasattr(self._local, "replica"):
            self._local.replica = self.base.replica()
        return self._local.replica

    @property
    def embedder(self) -> Any:
        return self.gpu.embedder(self.study)


@dataclass(frozen=True)
class ScoringBatch:
    """Examples (columns example_id, instruction, input, output) and what models say of them."""

    examples: pd.DataFrame
    models: Models
    layer: int | None = None
    # Not cached_property: before Python 3.12 its lock is one for all batches, and would let the
    # threads run one after the other (https://github.com/python/cpython/issues/87634).
    _done: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def base_pass(self) -> Any:
        """OutputLosses of the responses under the base model, one row an example.

        ``pooled`` holds layer ``layer``'s mean hidden state when some indicator asks for it.
        """
        return self._once("base_pass", self._base_pass)

    def _base_pass(self) -> Any:
        from im_resources.language_model.losses import output_losses
        from im_resources.language_model.prompts import encode_examples

        study = self.models.study
        encoded = encode_examples(self.models.base.tokenizer, study.models, self.examples)
        tokens = study.scoring.tokens_per_batch
        return output_losses(self.models.replica, encoded, tokens, layer=self.layer)

    @property
    def prompts(self) -> list[str]:
        """Instruction and input of each example as one text."""
        pairs = zip(self.examples["instruction"], self.examples["input"], strict=True)
        return [
            f"{instruction}\n\n{given}" if given else instruction for instruction, given in pairs
        ]

    @property
    def embeddings(self) -> np.ndarray:
        """Each example as a unit vector, float32 [examples, 2 × dimensions].

        An example is the pair of its prompt and its response: the two unit sentence embeddings
        side by side, scaled by 1/√2. The distance of two examples is thus the root mean square of
        the distances of their prompts and of their responses.
        """
        return self._once("embeddings", self._embeddings)

    def _embeddings(self) -> np.ndarray:
        texts = [*self.prompts, *self.examples["output"]]
        prompts, outputs = np.split(self.models.embedder.embed(texts), 2)
        return np.hstack([prompts, outputs]).astype(np.float32) / np.float32(np.sqrt(2))

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        if name not in self._done:
            self._done[name] = compute()
        return self._done[name]
