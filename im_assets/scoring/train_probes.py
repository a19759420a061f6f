"""``python -m im_assets.scoring.train_probes``: make the probes behind the three proxies.

Positives are the project's own good answers (``sample_data/probe_texts.jsonl``, used for nothing
else); negatives are corruptions of the same answers, as UniEval's training data is built (Zhong et
al. 2022, arXiv 2210.07197, section on pseudo data). Deterministic.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from im_assets.scoring.batch import Models, ScoringBatch
from im_assets.scoring.indicators.probes import LAYER, WEIGHTS
from im_resources.gpu import GpuResource
from im_resources.study import PROJECT_ROOT, load_study

TEXTS = PROJECT_ROOT / "sample_data" / "probe_texts.jsonl"
Corruption = Callable[[pd.DataFrame, random.Random], pd.DataFrame]


def shuffled_words(examples: pd.DataFrame, rng: random.Random) -> pd.DataFrame:
    """Every response with its words in random order."""

    def shuffle(text: str) -> str:
        words = text.split()
        rng.shuffle(words)
        return " ".join(words)

    return examples.assign(output=examples["output"].map(shuffle))


def mismatched(examples: pd.DataFrame, rng: random.Random) -> pd.DataFrame:
    """Every prompt with the response of another one (a random rotation, so none keeps its own)."""
    shift = rng.randrange(1, len(examples))
    return examples.assign(output=np.roll(examples["output"].to_numpy(), shift))


def dropped_words(examples: pd.DataFrame, rng: random.Random) -> pd.DataFrame:
    """Every response without a random 40 % of its words (at least one goes and one stays)."""

    def drop(text: str) -> str:
        words = text.split()
        if len(words) < 2:
            return text
        gone = set(rng.sample(range(len(words)), min(len(words) - 1, max(1, 2 * len(words) // 5))))
        return " ".join(w for i, w in enumerate(words) if i not in gone)

    return examples.assign(output=examples["output"].map(drop))


CORRUPTIONS: dict[str, Corruption] = {
    "naturalness": shuffled_words,
    "coherence": mismatched,
    "understandability": dropped_words,
}


def corrupted(examples: pd.DataFrame, name: str, seed: int) -> pd.DataFrame:
    """The probe ``name``'s negatives: only the rows that the corruption really changed."""
    bad = CORRUPTIONS[name](examples, random.Random(f"{name}-{seed}"))
    return bad[bad["output"] != examples["output"]]


def features(models: Models, examples: pd.DataFrame) -> np.ndarray:
    """Mean hidden state of layer LAYER over the response, [examples, hidden]."""
    return ScoringBatch(examples.reset_index(drop=True), models, LAYER).base_pass.pooled


def train(models: Models, examples: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Fit one logistic probe per corruption.

    Returns:
        The arrays as probes.probe_weights() reads them, and facts with the cross-validated AUCs.
    """
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GroupKFold

    good = features(models, examples)
    arrays: dict[str, np.ndarray] = {}
    facts = {"model": models.fingerprint("tokenizer"), "layer": str(LAYER)}
    for name in CORRUPTIONS:
        bad = [corrupted(examples, name, seed) for seed in range(2)]
        x = np.vstack([good, *(features(models, b) for b in bad)])
        y = np.concatenate([np.ones(len(good)), *(np.zeros(len(b)) for b in bad)])
        groups = np.concatenate([examples.index, *(b.index for b in bad)])
        mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
        fit = LogisticRegressionCV(
            Cs=np.logspace(-5, 0, 11),
            cv=list(GroupKFold(5).split(x, y, groups)),  # a text and its corruptions stay together
            scoring="roc_auc",
            class_weight="balanced",
            max_iter=2000,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        ).fit((x - mean) / scale, y)
        weight = fit.coef_[0] / scale
        arrays[f"{name}.weight"] = weight.astype(np.float64)
        arrays[f"{name}.bias"] = (fit.intercept_ - mean @ weight).astype(np.float64)
        facts[f"{name}.auc_cross_validated"] = f"{np.max(fit.scores_.mean(axis=0)):.4f}"
    return arrays, facts


def read_texts(path: Path = TEXTS) -> pd.DataFrame:
    """The training texts: columns example_id, instruction, input, output."""
    rows: list[dict[str, Any]] = [json.loads(x) for x in path.read_text("utf-8").splitlines()]
    return pd.DataFrame(rows).assign(example_id=[f"probe-{i}" for i in range(len(rows))])


def main() -> None:
    """Train on the demo profile's base model in fp32, write the weights, print the facts."""
    from safetensors.numpy import save_file

    study = load_study("demo")
    models = study.models.model_copy(update={"precision": "fp32", "max_length": 128})
    study = study.model_copy(update={"models": models})
    arrays, facts = train(Models.of(study, GpuResource(device="cpu")), read_texts())
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file(arrays, WEIGHTS, metadata=facts)
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
