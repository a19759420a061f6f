"""Scoring and evaluation as research scripts do it, for comparison: one example at a time, through
plain transformers, sentence-transformers, LexicalRichness and scikit-learn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from im_assets.scoring.batch import Models
from im_assets.scoring.indicators.probes import LAYER, probe_weights
from im_resources.language_model.prompts import Encoded

IGNORED = -100
PROBES = {"nat": "naturalness", "coh": "coherence", "und": "understandability"}


def one_at_a_time(
    models: Models, examples: pd.DataFrame, encoded: Sequence[Encoded], one_pass: bool
) -> dict[str, np.ndarray]:
    """The demo's nine indicators, [examples] each; knn_6 of the examples as one set.

    Args:
        one_pass: perplexity and the three probes share a forward pass; else each has its own, as
            where each indicator is a script of its own.
    """
    model, tokenizer = models.base.model, models.tokenizer
    embedder = models.embedder.model
    weights, _ = probe_weights()
    rows, vectors = [], []
    for row, tokens in zip(examples.itertuples(), encoded, strict=True):
        asked = f"{row.instruction}\n\n{row.input}" if row.input else str(row.instruction)
        pair = [embedder.encode([t], normalize_embeddings=True)[0] for t in (asked, row.output)]
        vectors.append(np.concatenate(pair) / np.sqrt(2))
        once = [forward(model, tokens)]
        passes = once * 4 if one_pass else [*once, *(forward(model, tokens) for _ in range(3))]
        found = {
            "len_in": len(tokenizer(asked, add_special_tokens=False)["input_ids"]),
            "len_out": len(tokenizer(row.output, add_special_tokens=False)["input_ids"]),
            "reward": float(pair[0] @ pair[1]),
            "ppl": float(np.exp(passes[0].loss.item())),
            "mtld": mtld_of(str(row.output)),
        }
        for (name, probe), states in zip(PROBES.items(), passes[1:], strict=True):
            first, last = len(tokens.prompt) - 1, tokens.length - 1
            mean = states.hidden_states[LAYER][0, first:last].mean(0).float().cpu().numpy()
            logit = mean @ weights[f"{probe}.weight"] + weights[f"{probe}.bias"][0]
            found[name] = 1 / (1 + np.exp(-logit))
        rows.append(found)
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return table | {"knn_6": knn_of(np.stack(vectors))}


def forward(model: Any, row: Encoded) -> Any:
    """One row through the whole model: its loss, and the hidden states of all layers."""
    [output] = row.outputs
    ids = torch.tensor([[*row.prompt, *output]], device=model.device)
    labels = ids.clone()
    labels[:, : len(row.prompt)] = IGNORED
    with torch.no_grad():
        return model(input_ids=ids, labels=labels, output_hidden_states=True)


def mtld_of(text: str) -> float:
    """LexicalRichness's MTLD; 0 for a text without words, which it refuses."""
    from lexicalrichness import LexicalRichness

    lexicon = LexicalRichness(text)
    return float(lexicon.mtld(threshold=0.72)) if lexicon.words else 0.0


def knn_of(vectors: np.ndarray, neighbour: int = 6) -> np.ndarray:
    """Distance of each vector to its sixth nearest other, by scikit-learn's exact search."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=neighbour + 1, algorithm="brute").fit(vectors)
    return search.kneighbors(vectors)[0][:, -1]


def plain_losses(model: Any, rows: Sequence[Encoded], batch_size: int) -> list[float]:
    """The summed loss of each response, by a plain loop: a row an output, padded batches in the
    set's order, logits at every position."""
    flat = [(row.prompt, output) for row in rows for output in row.outputs]
    found: list[float] = []
    for start in range(0, len(flat), batch_size):
        part = flat[start : start + batch_size]
        width = max(len(prompt) + len(output) for prompt, output in part)
        ids, labels, mask = (torch.full((len(part), width), v) for v in (0, IGNORED, 0))
        for k, (prompt, output) in enumerate(part):
            whole = len(prompt) + len(output)
            ids[k, :whole] = torch.tensor([*prompt, *output])
            labels[k, len(prompt) : whole] = torch.tensor(output)
            mask[k, :whole] = 1
        with torch.no_grad():
            moved = ids.to(model.device), mask.to(model.device)
            logits = model(input_ids=moved[0], attention_mask=moved[1]).logits[:, :-1].float()
            flat_labels = labels[:, 1:].reshape(-1).to(model.device)
            losses = torch.nn.functional.cross_entropy(
                logits.reshape(len(flat_labels), -1), flat_labels, reduction="none"
            ).view(len(part), -1)
        found += losses.sum(1).tolist()
    return found
