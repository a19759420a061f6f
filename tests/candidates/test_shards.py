"""However a pool is cut into shards, and in whichever order they come back: one result."""

import json
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.candidates.cleaning import Run, clean, decide, store
from im_assets.candidates.content import identity_of
from im_assets.candidates.languages import with_language
from im_assets.candidates.reading import REJECTED_COLUMNS
from im_assets.candidates.shards import Shard, shards_of
from im_assets.candidates.tracing import version_of_rows
from im_resources.study import CleaningSettings
from im_resources.workplace import Task

NOTHING = pd.DataFrame(columns=REJECTED_COLUMNS)
WORDS = [f"w{i}" for i in range(300)] + ["é", "café", "中文字", "the", "of"]
SETTINGS = CleaningSettings(near_duplicate_similarity=0.7, max_chars=900)


def evaluation(draw: random.Random) -> pd.DataFrame:
    def text(*words: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.choice(words)))

    rows = [(f"e{i}", text(3, 12, 20), "", text(4, 30, 80), "ev", i + 1) for i in range(12)]
    return pd.DataFrame(
        rows, columns=["eval_id", "instruction", "input", "output", "source", "line"]
    )


def pool(draw: random.Random, held_out: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Families of copies and near duplicates, leaks, crowds, conversations, empty and long rows,
    shuffled over sources and files."""

    def words(*counts: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.choice(counts)))

    def changed(text: str, most: int) -> str:
        parts = text.split()
        for _ in range(draw.randrange(most)):
            if parts:
                parts[draw.randrange(len(parts))] = draw.choice(WORDS)
        return " ".join(parts)

    known = [(words(1, 3, 8), words(0, 0, 10), words(2, 4, 30, 70, 250)) for _ in range(rows // 4)]
    crowd = words(90)
    made = []
    for number in range(rows):
        kind = draw.random()
        texts = draw.choice(known)
        if kind < 0.15:
            texts = words(1, 8), "", words(0, 30)
        elif kind < 0.4:
            texts = f"{texts[0]} ", texts[1], changed(texts[2], 4)
        elif kind < 0.5:
            row = held_out.iloc[draw.randrange(len(held_out))]
            texts = draw.choice(["Go there.", row["instruction"]]), "", changed(row["output"], 2)
        elif kind < 0.75:
            texts = "Go", "", changed(crowd, 3)
        turns = None
        if draw.random() < 0.15:
            before = [("system", "Be kind."), ("user", draw.choice(["Hi", ""])), ("user", texts[0])]
            turns = json.dumps([{"role": role, "content": said} for role, said in before])
        place = draw.choice("abc"), draw.choice(["x.jsonl", "y.jsonl"]), number + 1
        own = draw.choice([None, "7"]), draw.choice([1.5, float("nan")])
        made.append((*place, *texts, draw.choice(["", "qa"]), *own, turns))
    return pd.DataFrame(
        made,
        columns=["source", "file", "line", "instruction", "input", "output", "category", "own_id",
                 "worth", "turns"],
    )  # fmt: skip


def elsewhere(order: Callable[[list[str]], list[str]]) -> Run:
    """Does the task for each item as if on another machine, in an order of its own."""

    def run(task: Task, items: Mapping[str, Any], **common: Any) -> Iterator[tuple[str, Any]]:
        for key in order(list(items)):
            sent = pickle.loads(pickle.dumps((task, {key: items[key]}, common)))
            yield from pickle.loads(pickle.dumps(list(sent[0](sent[1], None, **sent[2]))))

    return run


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, pd.DataFrame, set[str]]:
    draw = random.Random(5)
    held_out = evaluation(draw)
    rows = pool(draw, held_out, 400)
    return rows, held_out, {identity_of(rows.iloc[n].to_dict()) for n in range(0, 400, 40)}


def test_shards_change_nothing(data: tuple[pd.DataFrame, pd.DataFrame, set[str]]) -> None:
    rows, held_out, withdrawn = data
    kept, dropped = clean(rows, NOTHING, SETTINGS, held_out, withdrawn, sizes=[len(rows)])
    counts = Counter(dropped["kind"])
    wanted = "leaks", "exact duplicate", "near duplicate", "empty", "too long", "withdrawn"
    assert min(counts[kind] for kind in wanted) >= 3, counts
    assert dropped["reason"].str.contains(", which is a near duplicate of ").any()
    assert len(kept) > 50

    @settings(max_examples=12)
    @given(
        st.lists(st.integers(0, 120), max_size=8),
        st.randoms(use_true_random=False),
    )
    def cut(sizes: list[int], order: random.Random) -> None:
        fitting: list[int] = []
        for size in sizes:
            fitting.append(min(size, len(rows) - sum(fitting)))
        fitting.append(len(rows) - sum(fitting))
        run = elsewhere(lambda keys: order.sample(keys, len(keys)))
        again = clean(rows, NOTHING, SETTINGS, held_out, withdrawn, fitting, run)
        pd.testing.assert_frame_equal(again[0], kept)
        pd.testing.assert_frame_equal(again[1], dropped)

    cut()


def test_a_table_made_of_files_has_the_version_of_its_content(
    data: tuple[pd.DataFrame, pd.DataFrame, set[str]], tmp_path: Any
) -> None:
    rows, held_out, withdrawn = data
    frame = with_language(clean(rows, NOTHING, SETTINGS, held_out, withdrawn)[0])
    shards = shards_of(rows, tmp_path / "rows", [150, 50, 0, 200])
    decided = decide(shards, SETTINGS, held_out, withdrawn, tmp_path)
    found = store(shards, decided, tmp_path, SETTINGS.max_chars, "pool")
    assert found.version == version_of_rows(frame)
    assert found.kept.rows == len(frame)
    assert found.by_source == Counter(frame["source"])
    assert found.languages == Counter(zip(frame["source"], frame["language"], strict=True))
    assert set(found.quarantined.frame()["dataset"]) == {"pool"}
    pd.testing.assert_frame_equal(
        found.kept.frame()[list(frame.columns)], frame, check_dtype=False, check_like=True
    )


def test_a_shard_travels_with_its_rows(tmp_path: Any) -> None:
    rows = pool(random.Random(1), evaluation(random.Random(1)), 12)
    [first, second] = shards_of(rows, tmp_path, [5, 7])
    sent: Shard = pickle.loads(pickle.dumps(second))
    assert isinstance(sent.content, bytes)
    assert (sent.first, sent.rows) == (5, 7)
    assert sent.table() == second.table()
    assert first.table(["output"]).column("output").to_pylist() == rows["output"][:5].tolist()
