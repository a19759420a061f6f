"""Do the proxies tell good answers from corrupted ones? (``pytest -s`` prints the table.)

The good answers are sample_data/careful.jsonl, on which no probe was trained. The bounds lie below
what was measured, so that another CPU's rounding does not matter and a broken probe does.
"""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.indicators.probes import LAYER, probe_weights
from im_assets.scoring.registry import BACKENDS, IndicatorError
from im_assets.scoring.train_probes import (
    TEXTS,
    dropped_words,
    mismatched,
    read_texts,
    shuffled_words,
)
from im_resources.study import ModelSource
from tests.scoring.demo_models import demo_study, models_of, sample

PROXIES = {
    "reward": "embedding_cosine_proxy",
    "nat": "naturalness_proxy",
    "coh": "coherence_proxy",
    "und": "understandability_proxy",
}
GOOD = sample("careful", 40)


MODELS = models_of(demo_study(PROXIES))


def scores_of(examples: pd.DataFrame) -> pd.DataFrame:
    batch = ScoringBatch(examples, MODELS, LAYER)
    return pd.DataFrame(
        {name: BACKENDS.all()[proxy].score(batch) for name, proxy in PROXIES.items()}
    )


@pytest.fixture(scope="module")
def auc() -> pd.DataFrame:
    """AUC of good against corrupted: rows are proxies, columns corruptions."""
    good, table = scores_of(GOOD), {}
    for corrupt in (mismatched, shuffled_words, dropped_words):
        bad = scores_of(corrupt(GOOD, random.Random(7)))
        truth = np.repeat([1, 0], len(GOOD))
        table[corrupt.__name__] = {
            name: float(roc_auc_score(truth, np.concatenate([good[name], bad[name]])))
            for name in PROXIES
        }
    frame = pd.DataFrame(table)
    print(f"\n{frame.round(3).to_string()}")
    return frame


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(
    ("proxy", "corruption", "bound"),
    [
        ("reward", "mismatched", 0.95),
        ("nat", "shuffled_words", 0.97),
        ("coh", "mismatched", 0.90),
        ("und", "dropped_words", 0.97),
    ],
)
def test_a_proxy_sees_what_it_is_for(
    auc: pd.DataFrame, proxy: str, corruption: str, bound: float
) -> None:
    assert auc[corruption][proxy] > bound


@pytest.mark.model
def test_no_proxy_prefers_corrupted_answers(auc: pd.DataFrame) -> None:
    assert (auc > 0.5).all(axis=None)


@pytest.mark.model
def test_a_probe_is_a_probability() -> None:
    scores = scores_of(GOOD[:4]).drop(columns="reward")
    assert ((scores > 0) & (scores < 1)).all(axis=None)


def test_probes_were_not_trained_on_what_they_are_measured_or_used_on() -> None:
    trained = set(read_texts(TEXTS)["output"])
    for name in ("careful", "howto", "terse", "rambling"):
        assert trained.isdisjoint(sample(name)["output"])
    assert trained.isdisjoint(sample("unseen")["response"])


def test_the_weights_are_of_the_demos_base_model() -> None:
    arrays, facts = probe_weights()
    assert facts["model"] == MODELS.fingerprint("tokenizer")
    assert facts["layer"] == str(LAYER)
    assert {name.partition(".")[0] for name in arrays} == {
        "naturalness",
        "coherence",
        "understandability",
    }


def test_another_base_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"another model")
    study = demo_study(PROXIES, models={"base": ModelSource(path=str(tmp_path))})
    batch = ScoringBatch(GOOD, models_of(study), LAYER)
    for name in ("nat", "coh", "und"):
        with pytest.raises(IndicatorError, match=r"SmolLM2-135M-Instruct.*unieval"):
            BACKENDS.all()[PROXIES[name]].score(batch)


def test_corruptions_change_the_response_and_nothing_else() -> None:
    for corrupt in (mismatched, shuffled_words, dropped_words):
        bad = corrupt(GOOD, random.Random(1))
        assert (bad["output"] != GOOD["output"]).all()
        assert bad.drop(columns="output").equals(GOOD.drop(columns="output"))
        assert bad.equals(corrupt(GOOD, random.Random(1)))
