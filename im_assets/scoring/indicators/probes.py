"""nat, coh, und (proxies): linear probes on a hidden layer of the frozen SmolLM2-135M-Instruct.

UniEval (Zhong et al. 2022) trains its evaluator on synthetic corruptions of good text. These probes
follow that recipe in small: logistic regression on the mean hidden state of the response, good
answers against shuffled words (naturalness), answers to another question (coherence), and dropped
words (understandability). ``im_assets/scoring/train_probes.py`` makes them; docs/indicators.md
gives their measured discrimination.
"""

from functools import cache
from pathlib import Path

import numpy as np

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import IndicatorError, indicator

LAYER = 20
WEIGHTS = Path(__file__).parent.parent / "probes" / "smollm2-135m-instruct.safetensors"


@cache
def probe_weights() -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The probes' arrays (``<probe>.weight`` [hidden], ``<probe>.bias`` [1]) and their facts."""
    from safetensors import safe_open

    with safe_open(WEIGHTS, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return arrays, dict(file.metadata())


def probe(batch: ScoringBatch, name: str) -> np.ndarray:
    """Probability of being uncorrupted, in (0, 1), by the probe ``name``.

    Raises IndicatorError when the study's base model is not the one the probes were trained on.
    """
    weights, facts = probe_weights()
    if batch.models.fingerprint("tokenizer") != facts["model"]:
        raise IndicatorError(
            f"{name}_proxy was trained on hidden states of SmolLM2-135M-Instruct; with "
            "another base model use the unieval backend, or train probes (docs/indicators.md)"
        )
    logit = batch.base_pass.pooled @ weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return 1 / (1 + np.exp(-logit))


@indicator(
    "naturalness_proxy",
    version=1,
    uses=("base",),
    layer=LAYER,
    weights=WEIGHTS,
    text="conversation",
)
def naturalness(batch: ScoringBatch) -> np.ndarray:
    """Do the words stand in a natural order?"""
    return probe(batch, "naturalness")


@indicator(
    "coherence_proxy", version=1, uses=("base",), layer=LAYER, weights=WEIGHTS, text="conversation"
)
def coherence(batch: ScoringBatch) -> np.ndarray:
    """Does the response answer this instruction?"""
    return probe(batch, "coherence")


@indicator(
    "understandability_proxy",
    version=1,
    uses=("base",),
    layer=LAYER,
    weights=WEIGHTS,
    text="conversation",
)
def understandability(batch: ScoringBatch) -> np.ndarray:
    """Is the response complete enough to be understood?"""
    return probe(batch, "understandability")
