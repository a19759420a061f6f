"""Sentence embeddings (SentenceBERT space of the paper's KNN indicator)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from im_resources.language_model.loading import check_download, hub_snapshot, locate
from im_resources.study import ModelSource


@dataclass(frozen=True)
class LoadedEmbedder:
    """A sentence-embedding model in memory; ``fingerprint`` covers its weights."""

    model: Any
    fingerprint: str

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, float32 [texts, dimensions]; texts beyond the model's length are cut."""
        return self.model.encode(
            list(texts), normalize_embeddings=True, batch_size=64, show_progress_bar=False
        )


def load_embedder(source: ModelSource, device: torch.device) -> LoadedEmbedder:
    """Load a sentence-transformers model. Raises ModelError when it cannot be found."""
    from sentence_transformers import SentenceTransformer

    place, revision, weights = locate(source, contents=True)
    model = SentenceTransformer(
        place,
        revision=revision,
        device=str(device),
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )
    if source.hub is not None:
        check_download(hub_snapshot(source.hub, revision, ["config.json"]))
    return LoadedEmbedder(model, weights)
