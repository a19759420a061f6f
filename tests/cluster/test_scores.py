"""Scores by a cluster: the same tables as on one machine, whoever asks, and each made once."""

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from im_assets.candidates.cleaning import clean
from im_assets.candidates.making import rows_of_shard
from im_assets.scoring.batch import Models
from im_assets.scoring.cuts import CACHE as CUTS
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import chosen
from im_assets.scoring.scorer import score_missing
from im_resources.gpu import GpuResource
from im_resources.usage import counting
from im_resources.warehouse import Warehouse
from im_resources.workplace import Workplace
from tests.candidates.test_shards import NOTHING, SETTINGS, evaluation, pool
from tests.cluster.fixtures import Site

EXAMPLES = pd.DataFrame(
    {
        "example_id": [f"id-{i:03d}" for i in range(40)],
        "instruction": [f"Tell me about number {i}." for i in range(40)],
        "input": "",
        "output": [f"It is {i}" + " or so" * (i % 7) + "." for i in range(40)],
    }
)
SCORING = {
    "chunk": 8,
    "indicators": {
        "len_out": "response_length",
        "ppl": "perplexity",
        "reward": "embedding_cosine_proxy",
        "knn_6": "nearest_neighbour",
    },
}


def test_two_that_ask_at_once_get_the_scores_of_one_machine_made_once(
    site: Site, tmp_path: Path
) -> None:
    study = site.study("scores", scoring=SCORING)
    own, table = Models.of(study, GpuResource(device="cpu", side_by_side=1)), tmp_path / "w.duckdb"
    with counting() as here:
        scores, computed = score_missing(EXAMPLES, chosen(study.scoring), own, Warehouse(table))
    assert computed == len(EXAMPLES)
    told: list[tuple[int, int]] = []

    def ask(_: int) -> tuple[pd.DataFrame, int]:
        models = Models.of(study, site.gpu(study, examples_per_shard=16))
        return score_missing(
            EXAMPLES, chosen(study.scoring), models, site.warehouse(study),
            lambda *done: told.append(done),
        )  # fmt: skip

    with counting() as there, ThreadPoolExecutor(2) as pool:
        both = list(pool.map(ask, range(2)))
    assert told[-1] == (40, 40)
    # Of both together, what one machine needed once, and not a chunk more: each node's process
    # tries a few tokens when it has loaded the model.
    assert here.tokens <= there.tokens < here.tokens * 6 / 5
    for found, _ in both:
        same(found, scores)
    warehouse = site.warehouse(study)
    mine = embeddings_of(EXAMPLES["example_id"].tolist(), own, Warehouse(table))
    theirs = embeddings_of(EXAMPLES["example_id"].tolist(), own, warehouse)
    assert np.abs(mine - theirs).max() < 1e-6
    cut_there, cut_here = (
        w.read_table(CUTS).sort_values("example_id", ignore_index=True)
        for w in (warehouse, Warehouse(table))
    )
    pd.testing.assert_frame_equal(cut_there, cut_here, check_like=True)
    # What one more asks for, of which a part is there.
    ids = [f"new-{i}" if number >= 36 else i for number, i in enumerate(EXAMPLES["example_id"])]
    more = EXAMPLES.assign(example_id=ids)
    _, computed = score_missing(
        more, chosen(study.scoring), Models.of(study, site.gpu(study)), warehouse
    )
    assert computed == 4


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    keys: list[Any] = ["example_id", "indicator", "fingerprint"]
    assert found[keys].astype(str).equals(expected[keys].astype(str))
    assert np.abs(found["value"] - expected["value"]).max() < 1e-6


def test_a_pool_is_cleaned_by_nodes_as_on_one_machine(site: Site) -> None:
    draw = random.Random(3)
    held_out = evaluation(draw)
    rows, study = pool(draw, held_out, 300), site.study("cleaning")
    gpu = site.gpu(study, examples_per_shard=50)
    run = partial(gpu.run, here=Workplace(study, gpu), weigh=rows_of_shard)
    expected = clean(rows, NOTHING, SETTINGS, held_out)
    found = clean(rows, NOTHING, SETTINGS, held_out, sizes=[40, 90, 60, 110], run=run)
    for mine, theirs in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


def test_texts_are_embedded_by_a_node(site: Site) -> None:
    study, texts = site.study("scores", scoring=SCORING), ["One text.", "And another one."]
    there = Models.of(study, site.gpu(study))
    here = Models.of(study, GpuResource(device="cpu", side_by_side=1))
    assert np.abs(there.embed(texts) - here.embed(texts)).max() < 1e-6
    assert there.embedded_lengths(texts) == here.embedded_lengths(texts)
