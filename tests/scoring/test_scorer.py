"""Each (example, indicator) is scored once, ever: also after a crash or with a new indicator."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from im_assets.scoring.batch import Models, ScoringBatch
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.indicators.nearest_neighbour import nearest_neighbour
from im_assets.scoring.registry import BACKENDS, IndicatorError, chosen, indicator
from im_assets.scoring.scorer import score_missing
from im_resources.gpu import GpuResource
from im_resources.study import PROJECT_ROOT, ModelSource, Study
from im_resources.warehouse import Warehouse
from tests.killing import attacked
from tests.registries import isolate
from tests.scoring import slow_scoring
from tests.scoring.demo_models import demo_study, models_of, sample

EXAMPLES = sample("careful", 10)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "scores.duckdb")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends that a test registers are gone after it."""
    isolate(BACKENDS, monkeypatch)


@pytest.fixture
def worked() -> Iterator[list[str]]:
    """Registers the backend ``counted``; gives the example_ids that it was asked for."""
    asked: list[str] = []

    @indicator("counted", version=1)
    def counted(batch: ScoringBatch, factor: float = 1.0) -> np.ndarray:
        asked.extend(batch.examples["example_id"])
        return factor * batch.examples["output"].str.len().to_numpy()

    yield asked
    assert len(asked) == len(set(asked))  # none twice


def run(
    warehouse: Warehouse, study: Study, examples: pd.DataFrame = EXAMPLES
) -> tuple[pd.DataFrame, int]:
    return score_missing(examples, chosen(study.scoring), models_of(study), warehouse)


def test_scores_are_long_complete_and_of_these_examples_only(
    warehouse: Warehouse, worked: list[str]
) -> None:
    study = demo_study({"letters": "counted", "mtld": "mtld"}, chunk=3)
    run(warehouse, study)
    scores, new = run(warehouse, study, EXAMPLES[2:6])
    assert new == 0
    assert list(scores.columns) == ["example_id", "indicator", "backend", "fingerprint", "value"]
    assert len(scores) == 8
    letters = scores[scores["indicator"] == "letters"].set_index("example_id")["value"]
    assert letters.to_dict() == dict(
        zip(EXAMPLES["example_id"][2:6], EXAMPLES["output"][2:6].str.len(), strict=True)
    )
    assert set(scores["backend"]) == {"counted", "mtld"}


def test_a_second_run_computes_nothing(warehouse: Warehouse, worked: list[str]) -> None:
    study = demo_study({"letters": "counted", "mtld": "mtld"})
    first, new = run(warehouse, study)
    assert new == 10
    assert len(worked) == 10
    second, new = run(warehouse, study)
    assert new == 0
    assert len(worked) == 10
    pd.testing.assert_frame_equal(first, second)


def test_only_new_examples_are_scored(warehouse: Warehouse, worked: list[str]) -> None:
    study = demo_study({"letters": "counted"})
    run(warehouse, study, EXAMPLES[:6])
    worked.clear()
    scores, new = run(warehouse, study)
    assert new == 4
    assert sorted(worked) == sorted(EXAMPLES["example_id"][6:])
    assert len(scores) == 10


def test_only_a_new_indicator_is_scored(warehouse: Warehouse, worked: list[str]) -> None:
    run(warehouse, demo_study({"letters": "counted"}), EXAMPLES[:6])
    scores, new = run(warehouse, demo_study({"letters": "counted", "mtld": "mtld"}))
    assert new == 10
    assert len(worked) == 10  # the six of before not again, as the fixture checks
    assert scores["indicator"].value_counts().to_dict() == {"letters": 10, "mtld": 10}
    assert not scores.duplicated(["example_id", "indicator"]).any()


def test_other_options_are_another_score(warehouse: Warehouse, worked: list[str]) -> None:
    plain, _ = run(warehouse, demo_study({"letters": "counted"}))
    worked.clear()
    option = {"letters": {"backend": "counted", "options": {"factor": 2.0}}}
    doubled, new = run(warehouse, demo_study(option))
    assert new == 10
    assert list(doubled["value"]) == list(2 * plain["value"])
    again, new = run(warehouse, demo_study({"letters": "counted"}))
    assert new == 0
    pd.testing.assert_frame_equal(again, plain)


def test_a_raised_version_is_another_score(warehouse: Warehouse) -> None:
    def constant(batch: ScoringBatch) -> np.ndarray:
        return np.full(len(batch.examples), value)

    value = 1.0
    indicator("constant", version=1)(constant)
    run(warehouse, demo_study({"c": "constant"}))
    value = 2.0
    unchanged, new = run(warehouse, demo_study({"c": "constant"}))
    assert (new, set(unchanged["value"])) == (0, {1.0})
    indicator("constant", version=2)(constant)
    changed, new = run(warehouse, demo_study({"c": "constant"}))
    assert (new, set(changed["value"])) == (10, {2.0})


def test_progress_reaches_the_number_to_do(warehouse: Warehouse, worked: list[str]) -> None:
    study = demo_study({"letters": "counted"}, chunk=4)
    run(warehouse, study, EXAMPLES[:3])
    seen: list[tuple[int, int]] = []
    score_missing(
        EXAMPLES,
        chosen(study.scoring),
        models_of(study),
        warehouse,
        lambda done, todo: seen.append((done, todo)),
    )
    assert seen == [(4, 7), (7, 7)]


def test_no_worker_is_idle_where_one_chunk_would_hold_all(warehouse: Warehouse) -> None:
    study = demo_study({"len_out": "response_length"}, chunk=256)
    many = pd.concat([EXAMPLES] * 4, ignore_index=True)
    many["example_id"] = [f"{name}-{k}" for k, name in enumerate(many["example_id"])]
    models, done = Models.of(study, GpuResource(device="cpu", side_by_side=2)), []
    score_missing(many, chosen(study.scoring), models, warehouse, lambda *d: done.append(d))
    assert len(done) == 3
    assert done[-1] == (40, 40)


def test_a_killed_run_resumes_and_ends_with_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "killed.duckdb"
    command = [sys.executable, "-m", slow_scoring.__name__, str(path)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT) as child:
        warehouse, deadline = Warehouse(path), time.monotonic() + 120
        try:
            while not warehouse.has_table("score_cache"):
                assert child.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            child.kill()
    before = warehouse.read_table("score_cache")
    assert 0 < len(before) < 2 * 60
    resumed, new = slow_scoring.score(path)
    assert new == 60 - before["example_id"].nunique()
    unbroken, new = slow_scoring.score(tmp_path / "unbroken.duckdb")
    assert new == 60
    pd.testing.assert_frame_equal(resumed, unbroken)


def test_no_kill_between_two_writes_changes_a_score(tmp_path: Path) -> None:
    found = attacked(f"{slow_scoring.__name__}:scored", tmp_path, 5)
    assert found["points"] >= 3
    assert found["differ"] == []


def test_a_failing_indicator_keeps_the_chunks_before_it(warehouse: Warehouse) -> None:
    broken = True

    @indicator("sometimes", version=1)
    def sometimes(batch: ScoringBatch) -> np.ndarray:
        if broken and "careful-3" in set(batch.examples["example_id"]):
            raise MemoryError("no memory for careful-3")
        return np.ones(len(batch.examples))

    study = demo_study({"s": "sometimes"}, chunk=1)
    with pytest.raises(MemoryError, match="careful-3"):
        run(warehouse, study)
    kept = len(warehouse.read_table("score_cache")) if warehouse.has_table("score_cache") else 0
    broken = False
    scores, new = run(warehouse, study)
    assert new == 10 - kept
    assert len(scores) == 10


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda n: np.where(np.arange(n) == 1, np.nan, 1.0), "'odd' (broken) is nan for example"),
        (lambda n: np.full(n, np.inf), "is inf for example careful-"),
        (lambda n: np.ones(n + 1), "returned shape (5,) for 4 examples"),
        (lambda n: np.ones((n, 1)), "returned shape (4, 1) for 4 examples"),
        (lambda n: 1.0, "returned shape () for 4 examples"),
    ],
    ids=["nan", "infinite", "too many", "a column", "a scalar"],
)
def test_a_backend_that_returns_nonsense_is_named_and_nothing_is_cached(
    warehouse: Warehouse, result: Any, message: str
) -> None:
    @indicator("broken", version=1)
    def broken(batch: ScoringBatch) -> np.ndarray:
        return result(len(batch.examples))

    with pytest.raises(IndicatorError, match=re.escape(message)):
        run(warehouse, demo_study({"odd": "broken"}), EXAMPLES[:4])
    assert not warehouse.has_table("score_cache")


def test_an_unknown_backend_gets_a_suggestion() -> None:
    study = demo_study({"ppl": "perplexty"})
    message = (
        "scoring.indicators.ppl: unknown indicator backend 'perplexty'; did you mean 'perplexity'?"
    )
    with pytest.raises(IndicatorError, match=re.escape(message)):
        chosen(study.scoring)


def test_two_backends_of_one_name_are_refused() -> None:
    with pytest.raises(IndicatorError, match=r"'mtld'.*im_assets\.scoring\.indicators\.mtld\.mtld"):

        @indicator("mtld", version=1)
        def other(batch: ScoringBatch) -> np.ndarray:
            return np.ones(len(batch.examples))


def fingerprints(study: Study) -> dict[str, str]:
    models = models_of(study)
    return {i.name: i.fingerprint(models) for i in chosen(study.scoring)}


def model_folder(folder: Path, content: bytes) -> ModelSource:
    """What looks like a model until it is loaded: enough to have a fingerprint."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    return ModelSource(path=str(folder))


def test_a_score_is_kept_under_what_it_depends_on(tmp_path: Path) -> None:
    one, other = model_folder(tmp_path / "1", b"one"), model_folder(tmp_path / "2", b"other")
    same = model_folder(tmp_path / "3", b"one")
    names = {
        "len_out": "response_length",
        "reward": "embedding_cosine_proxy",
        "ppl": "perplexity",
        "mtld": "mtld",
        "nat": "naturalness_proxy",
    }

    def keys(chunk: int = 4, **models: Any) -> dict[str, str]:
        return fingerprints(demo_study(names, chunk, {"base": one, "embedding": one, **models}))

    before = keys()

    def changed(**models: Any) -> set[str]:
        """The indicators whose cached scores do not hold under these changes to `models`."""
        after = keys(**models)
        return {name for name in names if before[name] != after[name]}

    assert keys(chunk=99) == before
    assert changed(precision="bf16") == {"ppl", "nat"}
    assert changed(prompt="alpaca") == {"ppl", "nat"}
    assert changed(max_length=100) == {"ppl", "nat"}
    assert changed(base=other) == {"ppl", "nat", "len_out"}
    assert changed(embedding=other) == {"reward"}
    assert changed(base=same, embedding=same) == set()


def test_weights_of_its_own_are_part_of_a_backends_key(tmp_path: Path) -> None:
    weights = tmp_path / "weights"

    @indicator("weighted", version=1, weights=weights)
    def weighted(batch: ScoringBatch) -> np.ndarray:
        return np.ones(len(batch.examples))

    study, seen = demo_study({"w": "weighted"}), set()
    for content in (b"1", b"2", b"1"):
        weights.write_bytes(content)
        seen.add(fingerprints(study)["w"])
    assert len(seen) == 2


def test_an_indicator_whose_model_is_not_set_says_which() -> None:
    @indicator("needs_reward", version=1, uses=("reward",))
    def needs_reward(batch: ScoringBatch) -> np.ndarray:
        return np.ones(len(batch.examples))

    with pytest.raises(ValueError, match=r"models\.reward"):
        fingerprints(demo_study({"r": "needs_reward"}))


@pytest.mark.model
def test_an_indicator_of_the_set_only_needs_embeddings(warehouse: Warehouse) -> None:
    study = demo_study({"knn_6": "nearest_neighbour"})
    scores, new = run(warehouse, study)
    assert (len(scores), new) == (0, 10)
    assert run(warehouse, study)[1] == 0
    models = models_of(study)
    reverse = list(EXAMPLES["example_id"][::-1])
    vectors = embeddings_of(reverse, models, warehouse)
    assert vectors.dtype == np.float32
    batch = ScoringBatch(EXAMPLES, models)
    np.testing.assert_allclose(vectors, batch.embeddings[::-1], atol=1e-6)
    assert nearest_neighbour(vectors, 6).shape == (10,)
    assert (vectors == embeddings_of(reverse, models, warehouse)).all()
    with pytest.raises(KeyError, match="nobody"):
        embeddings_of(["nobody"], models, warehouse)
    # Another indicator later does not embed again, and a new example is embedded and scored.
    more = demo_study({"knn_6": "nearest_neighbour", "mtld": "mtld"})
    scores, new = run(warehouse, more, sample("careful", 11))
    assert (len(scores), new) == (11, 11)
    assert len(warehouse.read_table("embedding_cache")) == 11


@pytest.mark.model
def test_each_indicator_gets_the_layer_that_it_asks_for(warehouse: Warehouse) -> None:
    def first_state(batch: ScoringBatch) -> np.ndarray:
        return batch.base_pass.pooled[:, 0]

    for layer in (2, 20):
        indicator(f"layer_{layer}", version=1, uses=("base",), layer=layer)(first_state)
    names = {"early": "layer_2", "late": "layer_20", "mtld": "mtld"}
    study = demo_study(names)
    scores, _ = run(warehouse, study, EXAMPLES[:3])
    values = scores.pivot(index="example_id", columns="indicator", values="value")
    for name, layer in (("early", 2), ("late", 20)):
        alone = ScoringBatch(EXAMPLES[:3], models_of(study), layer).base_pass.pooled[:, 0]
        np.testing.assert_allclose(values[name].loc[EXAMPLES["example_id"][:3]], alone, rtol=1e-3)
