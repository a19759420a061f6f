"""Each indicator against an independent computation of the same number."""

import gzip
import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lexicalrichness import LexicalRichness
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from im_assets.common.words import words_of
from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.indicators.embedding_cosine import embedding_cosine
from im_assets.scoring.indicators.length import instruction_length, response_length
from im_assets.scoring.indicators.mtld import mtld, text_mtld
from im_assets.scoring.indicators.nearest_neighbour import expected_distance, nearest_neighbour
from im_assets.scoring.indicators.perplexity import perplexity
from im_resources.study import PROJECT_ROOT
from tests.common.test_words import CLAUSES
from tests.scoring.demo_models import demo_study, models_of, sample

DATA = Path(os.environ.get("IM_DATA_DIR") or PROJECT_ROOT.parent / "shared" / "data")
# What the two could disagree on: digits, hyphens, typographic punctuation, no words at all.
AWKWARD = "It's 2-3 well-known facts — “quoted”, don’t – snake_case\t3rd naïve [x] 10.5% e-mail ..."


def reference_mtld(text: str) -> float:
    lexical = LexicalRichness(text)
    return float(lexical.mtld(threshold=0.72)) if lexical.words else 0.0


def assert_mtld_is_the_references(texts: list[str]) -> None:
    expected = [reference_mtld(text) for text in texts]
    assert [text_mtld(text) for text in texts] == pytest.approx(expected, abs=1e-9)


def test_mtld_is_lexicalrichness_on_the_sample_data() -> None:
    names = ["careful", "howto", "terse", "rambling", "unseen", "probe_texts"]
    frames = [sample(name) for name in names]
    outputs = [f["response"] if "response" in f else f["output"] for f in frames]
    texts = [text for column in outputs for text in column]
    texts += [text for outputs in sample("evaluation")["outputs"] for text in outputs]
    assert len(texts) > 800
    assert_mtld_is_the_references([*texts, AWKWARD, AWKWARD * 20])


@pytest.mark.skipif(
    not (DATA / "candidates").is_dir(), reason=f"no real data in {DATA} (set IM_DATA_DIR)"
)
def test_mtld_is_lexicalrichness_on_real_data() -> None:
    for name in ("alpaca", "oasst1", "stackexchange"):
        with gzip.open(DATA / "candidates" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line, _ in zip(file, range(150), strict=False)]
        assert_mtld_is_the_references([row["output"] for row in rows])


@given(st.lists(st.sampled_from(["the", "cat", "sat", "on-a", "mat.", "3", "Ω", "_"])))
def test_mtld_is_lexicalrichness_on_repetitive_texts(words: list[str]) -> None:
    assert_mtld_is_the_references([" ".join(words)])


@pytest.mark.parametrize("name", sorted(CLAUSES))
def test_mtld_of_a_script_without_blanks_is_the_references_on_its_words(name: str) -> None:
    text = CLAUSES[name] * 3
    spaced = " ".join(words_of(text))
    assert text_mtld(text) == pytest.approx(reference_mtld(spaced), abs=1e-9)
    assert text_mtld(text) > 5  # as one word a clause: 1 for the first repetition


def test_a_chinese_text_that_repeats_itself_is_less_diverse() -> None:
    text = CLAUSES["chinese"]
    assert text_mtld("我喜欢学习。" * 10) < 6 < text_mtld(text)


@pytest.mark.parametrize("text", ["", "  \n", "42 - 17 = 25", "…?!"[1:], "—"])
def test_a_text_without_words_has_no_diversity(text: str) -> None:
    assert text_mtld(text) == 0.0


def test_a_stricter_threshold_shortens_the_runs() -> None:
    text = " ".join(sample("rambling")["output"])
    assert text_mtld(text, 0.8) < text_mtld(text, 0.72) < text_mtld(text, 0.6)


def unit_vectors(count: int, dimensions: int = 32, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_nearest_neighbour_is_scikit_learns(count: int, neighbour: int, seed: int) -> None:
    vectors = unit_vectors(count + neighbour, seed=seed)
    reference = NearestNeighbors(n_neighbors=neighbour, algorithm="brute").fit(vectors)
    distances, _ = reference.kneighbors()  # without queries, a point is not its own neighbour
    ours = nearest_neighbour(vectors, neighbour)
    np.testing.assert_allclose(ours, distances[:, -1], atol=1e-6)


def test_nearest_neighbour_of_a_set_larger_than_a_block() -> None:
    vectors = unit_vectors(1300)
    distances, _ = NearestNeighbors(n_neighbors=6).fit(vectors.astype(float)).kneighbors()
    np.testing.assert_allclose(nearest_neighbour(vectors), distances[:, -1], atol=1e-6)


def test_repeated_examples_lie_at_distance_zero() -> None:
    vectors = np.repeat(unit_vectors(3), 7, axis=0)
    assert nearest_neighbour(vectors, 6) == pytest.approx(0, abs=1e-3)  # float32 cosines


def test_a_set_too_small_for_its_neighbour_is_refused() -> None:
    assert len(nearest_neighbour(unit_vectors(7), 6)) == 7
    with pytest.raises(ValueError, match="more than 6 examples, got 6"):
        nearest_neighbour(unit_vectors(6), 6)
    with pytest.raises(ValueError, match="more than 6 examples"):
        expected_distance(unit_vectors(5), size=20, neighbour=6)
    with pytest.raises(ValueError, match="more than 6 examples"):
        expected_distance(unit_vectors(50), size=6, neighbour=6)


def test_expected_distance_is_that_of_random_subsets() -> None:
    """Brute force: 1,500 random mixtures of 12; in each, every member's own third neighbour."""
    vectors, size, neighbour = unit_vectors(60, dimensions=4), 12, 3
    apart = cdist(vectors, vectors)
    total, seen = np.zeros(60), np.zeros(60)
    rng = np.random.default_rng(1)
    for _ in range(1500):
        members = rng.choice(60, size, replace=False)
        total[members] += np.sort(apart[np.ix_(members, members)], axis=1)[:, neighbour]
        seen[members] += 1
    brute = total / seen
    ours = expected_distance(vectors, size, neighbour)
    # About 300 appearances each: a standard error near 0.01; a bias would shift the mean.
    np.testing.assert_allclose(ours, brute, atol=0.06)
    assert abs((ours - brute).mean()) < 0.004


@pytest.mark.parametrize(("size", "neighbour"), [(3, 1), (5, 2), (6, 4), (8, 1), (10, 6)])
def test_expected_distance_is_the_mean_over_all_subsets(size: int, neighbour: int) -> None:
    """Every set that there is, one by one, equally likely; some examples are copies of others."""
    vectors = unit_vectors(10, dimensions=4).astype(float)
    vectors[7] = vectors[2]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    apart = np.sqrt(np.maximum(0.0, 2 - 2 * vectors @ vectors.T))
    total, seen = np.zeros(10), np.zeros(10)
    for chosen in combinations(range(10), size):
        members = list(chosen)
        total[members] += np.sort(apart[np.ix_(members, members)], axis=1)[:, neighbour]
        seen[members] += 1
    np.testing.assert_allclose(
        expected_distance(vectors, size, neighbour), total / seen, atol=1e-9, rtol=0
    )


def uneven_vectors(count: int, seed: int) -> np.ndarray:
    """Unit vectors of which some lie close together and others far apart."""
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.1, 0.5, 2.0], count)[:, None]
    vectors = rng.normal(size=(count, 6)) * spread + np.eye(6)[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_expected_distance_in_a_large_pool_is_that_within_a_sample_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unbiased: over samples, and so over many pools, the mean is that of the whole pool; and each
    example keeps about the place that it has."""
    exact, sampled = [], []
    for seed in range(20):
        vectors = uneven_vectors(400, seed)
        exact.append(expected_distance(vectors, 50, 6))
        with monkeypatch.context() as patched:
            patched.setattr("im_assets.scoring.indicators.nearest_neighbour.PAIRS", 400 * 100)
            sampled.append(expected_distance(vectors, 50, 6))
    assert np.mean(sampled) == pytest.approx(np.mean(exact), rel=0.005)
    assert np.corrcoef(np.concatenate(sampled), np.concatenate(exact))[0, 1] > 0.8


def test_expected_distance_is_the_same_from_memory_and_from_a_file(tmp_path: Path) -> None:
    vectors = unit_vectors(500)
    mapped = np.memmap(tmp_path / "vectors", np.float32, "w+", shape=vectors.shape)
    mapped[:] = vectors
    mapped.flush()
    assert (expected_distance(mapped, 50, 6) == expected_distance(vectors, 50, 6)).all()


def test_expected_distance_inside_a_pool_of_the_mixtures_size_is_exact() -> None:
    vectors = unit_vectors(40)
    for size in (40, 41, 1000):
        expected = nearest_neighbour(vectors, 6)
        np.testing.assert_allclose(expected_distance(vectors, size, 6), expected, atol=1e-6)


def test_expected_distance_is_repeatable_and_falls_with_the_size() -> None:
    vectors = unit_vectors(300)
    first = expected_distance(vectors, 30, 6)
    assert (first == expected_distance(vectors, 30, 6)).all()
    assert (expected_distance(vectors, 120, 6) < first).mean() > 0.99


def test_expected_distance_needs_memory_linear_in_the_pool() -> None:
    import tracemalloc

    def peak(count: int) -> int:
        vectors = unit_vectors(count, dimensions=8)
        tracemalloc.start()
        expected_distance(vectors, 50, 6)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(16_000) < 6 * peak(4_000)  # quadratic would be 16


def one_by_one(examples: pd.DataFrame, base: Any, max_length: int) -> list[float]:
    """Perplexities by transformers' own loss, a row at a time, without anything of ours."""
    import torch

    values = []
    for row in examples.to_dict("records"):
        context = f"{row['input']}\n" if row["input"] else ""
        prompt = base.tokenizer(f"Question: {row['instruction']}\n{context}Answer:")["input_ids"]
        response = base.tokenizer(f" {row['output']}", add_special_tokens=False)["input_ids"]
        response = [*response, base.tokenizer.eos_token_id][: max_length - len(prompt)]
        ids = torch.tensor([prompt + response])
        labels = torch.tensor([[-100] * len(prompt) + response])
        with torch.no_grad():
            values.append(float(base.model(input_ids=ids, labels=labels).loss.exp()))
    return values


def mixed_sample() -> pd.DataFrame:
    frame = pd.concat([sample(n, 2) for n in ("careful", "howto", "terse", "rambling")])
    return frame.reset_index(drop=True)


@pytest.mark.model
def test_perplexity_is_exp_of_transformers_loss() -> None:
    examples = mixed_sample()
    models = models_of(demo_study({"ppl": "perplexity"}))
    expected = one_by_one(examples, models.base, models.study.models.max_length)
    ours = perplexity(ScoringBatch(examples, models))
    np.testing.assert_allclose(ours, expected, rtol=2e-4)
    assert ours.min() > 1


@pytest.mark.model
def test_a_number_does_not_depend_on_the_chunk_it_is_computed_in() -> None:
    examples = mixed_sample()
    models = models_of(demo_study({"ppl": "perplexity"}))
    whole = ScoringBatch(examples, models, layer=20)
    alone = [ScoringBatch(examples[k : k + 1], models, layer=20) for k in range(3)]
    np.testing.assert_allclose(
        perplexity(whole)[:3], [perplexity(batch)[0] for batch in alone], rtol=2e-4
    )
    for k, batch in enumerate(alone):
        np.testing.assert_allclose(
            whole.base_pass.pooled[k], batch.base_pass.pooled[0], rtol=1e-3, atol=1e-3
        )


@pytest.mark.model
def test_lengths_are_the_tokenizers_counts_without_a_cut() -> None:
    examples = mixed_sample()
    examples.loc[0, "input"] = "Some context."
    examples.loc[1, "output"] = "a long answer " * 400
    models = models_of(demo_study({"len_in": "instruction_length"}))
    batch = ScoringBatch(examples, models)
    tokens = models.base.tokenizer.tokenize
    assert list(response_length(batch)) == [len(tokens(text)) for text in examples["output"]]
    texts = [f"{examples['instruction'][0]}\n\nSome context.", *examples["instruction"][1:]]
    assert list(instruction_length(batch)) == [len(tokens(text)) for text in texts]
    assert response_length(batch)[1] > 1000


@pytest.mark.model
def test_the_cosine_is_that_of_prompt_and_response() -> None:
    examples = mixed_sample()
    models = models_of(demo_study({"reward": "embedding_cosine_proxy"}))
    batch = ScoringBatch(examples, models)
    np.testing.assert_allclose(np.linalg.norm(batch.embeddings, axis=1), 1, atol=1e-5)
    encode = models.embedder.model.encode
    prompts, outputs = encode(batch.prompts), encode(list(examples["output"]))
    lengths = np.linalg.norm(prompts, axis=1) * np.linalg.norm(outputs, axis=1)
    expected = (prompts * outputs).sum(axis=1) / lengths
    np.testing.assert_allclose(embedding_cosine(batch), expected, atol=1e-5)


def test_mtld_scores_the_response_only() -> None:
    examples = mixed_sample()
    batch = ScoringBatch(examples, models_of(demo_study({"mtld": "mtld"})))
    assert list(mtld(batch)) == [text_mtld(text) for text in examples["output"]]
    assert list(mtld(batch, threshold=0.9)) != list(mtld(batch))
