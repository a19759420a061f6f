"""A chunk of examples while it is scored: each model runs over it at most once.

Perplexity and the three probes read the same forward pass of the base model; the cosine proxy and
KNN-i read the same embeddings. They are computed when the first indicator asks for them.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from im_resources.gpu import GpuResource
from im_resources.judge import judge_fingerprint
from im_resources.language_model.template_registry import learned_key
from im_resources.study import Study, fingerprint
from im_resources.turns import Turn, turns_in
from im_resources.warehouse import Warehouse
from im_resources.workplace import Workplace

if TYPE_CHECKING:
    from im_resources.language_model.prompts import Encoded

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
        """What identifies the outputs of a model: base, tokenizer, embedding, reward, unieval, or
        the judge.

        Found once: it hashes the model's files, and the probes ask for it with every chunk.
        """
        if name not in self._known:
            self._known[name] = self._fingerprint(name)
        return self._known[name]

    def _fingerprint(self, name: str) -> str:
        from im_resources.language_model.loading import locate

        models = self.study.models
        if name == "judge":
            judge = self.study.judge
            if judge is None:
                raise ValueError("an indicator needs a `judge`, which the profile does not set")
            local = judge.backend == "local"
            return judge_fingerprint(judge, self.gpu.base_fingerprint(self.study) if local else "")
        if name == "base":
            return fingerprint(self.gpu.base_fingerprint(self.study), *learned_key(models))
        weights = locate(models.needed("base" if name == "tokenizer" else name))[2]
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
    def tokenizer(self) -> Any:
        """The base model's, without the model."""
        return self.gpu.tokenizer(self.study)

    @property
    def replica(self) -> Any:
        """This thread's own modules over the shared base weights (forward hooks are per module)."""
        if not hasattr(self._local, "replica"):
            self._local.replica = self.base.replica()
        return self._local.replica

    @property
    def embedder(self) -> Any:
        return self.gpu.embedder(self.study)

    def embed(self, texts: list[str]) -> np.ndarray:
        """Unit vectors of texts, float32 [texts, dimensions], made where models run."""
        here = Workplace(self.study, self.gpu)
        [(_, vectors)] = self.gpu.run(embedded_texts, {"texts": texts}, here)
        return np.asarray(vectors)

    def embedded_lengths(self, texts: list[str]) -> list[int]:
        """The tokens that the embedding model reads of each text."""
        here = Workplace(self.study, self.gpu)
        [(_, lengths)] = self.gpu.run(lengths_of_texts, {"texts": texts}, here)
        return list(lengths)


def lengths_of_texts(
    items: Mapping[str, list[str]], here: Workplace
) -> Iterator[tuple[str, list[int]]]:
    """A task: the tokens of each of the texts, as the embedding model cuts them."""
    model = here.gpu.embedder(here.study).model
    for name, texts in items.items():
        found = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)
        yield name, [len(row) for row in found["input_ids"]]


def embedded_texts(
    items: Mapping[str, list[str]], here: Workplace
) -> Iterator[tuple[str, np.ndarray]]:
    """A task: unit vectors of each list of texts, float32 [texts, dimensions]."""
    for name, texts in items.items():
        yield name, here.gpu.embedder(here.study).embed(texts)


@dataclass(frozen=True)
class ScoringBatch:
    """Examples (columns example_id, instruction, input, output; turns where some are
    conversations) and what models say of them.

    An indicator reads the last exchange of a conversation (``prompts`` and the column ``output``)
    or all of it (``all_prompts``, ``all_responses``, ``base_pass``).
    """

    examples: pd.DataFrame
    models: Models
    layer: int | None = None
    # Of a backend that is given all examples at once: where it keeps what it finds as it comes, and
    # what it tells how many it has.
    warehouse: Warehouse | None = None
    on_done: Callable[[int], None] | None = None
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

        tokens = self.models.study.scoring.tokens_per_batch
        return output_losses(self.models.replica, self.encoded, tokens, layer=self.layer)

    @property
    def encoded(self) -> "list[Encoded]":
        """The examples as the tokens that the base model reads."""
        found: list[Encoded] = self._once("encoded", self._encoded)
        return found

    @property
    def tokenized(self) -> bool:
        """Whether some indicator has asked for ``encoded``."""
        return "encoded" in self._done

    def _encoded(self) -> "list[Encoded]":
        from im_resources.language_model.prompts import encode_examples

        models = self.models
        return encode_examples(models.base.tokenizer, models.study.models, self.examples)

    @property
    def prompts(self) -> list[str]:
        """Instruction and input of each example as one text; of a conversation, the last ones."""
        pairs = zip(self.examples["instruction"], self.examples["input"], strict=True)
        return [
            f"{instruction}\n\n{given}" if given else instruction for instruction, given in pairs
        ]

    @property
    def all_prompts(self) -> list[str]:
        """All that is no reply: of a conversation, every turn of others than the assistant."""
        return [
            prompt if turns is None else _joined(t for t in turns if t.role != "assistant")
            for prompt, turns in zip(self.prompts, turns_in(self.examples), strict=True)
        ]

    @property
    def all_responses(self) -> list[str]:
        """The response; of a conversation, every reply."""
        return [
            output
            if turns is None
            else _joined([*(t for t in turns if t.role == "assistant"), Turn("assistant", output)])
            for output, turns in zip(self.examples["output"], turns_in(self.examples), strict=True)
        ]

    @property
    def embeddings(self) -> np.ndarray:
        """Each example as a unit vector, float32 [examples, 2 × dimensions].

        An example is the pair of its prompt and its response (of a conversation, the last ones):
        the two unit sentence embeddings side by side, scaled by 1/√2. The distance of two examples
        is thus the root mean square of the distances of their prompts and of their responses.
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


def _joined(turns: Iterable[Turn]) -> str:
    return "\n\n".join(turn.content for turn in turns)
