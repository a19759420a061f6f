"""similar_to: what it takes first by each way, what it reads of a file, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from im_assets.candidates.content import example_id
from im_assets.selection.choosing import choose
from im_assets.selection.pool import Pool
from im_assets.selection.registry import contents_of
from im_assets.selection.selecting import SelectionError
from im_resources.study import StrategySettings
from tests.selection.pools import small_pool


def unit(*angles: float) -> np.ndarray:
    """Unit vectors in the plane at these angles (degrees)."""
    radians = np.radians(angles)
    return np.column_stack([np.cos(radians), np.sin(radians)]).astype(np.float32)


# Texts of the targets by the angle of their vector.
ANGLES = {"north": 90.0, "east": 0.0, "yes": 0.0, "no": 180.0}
PROMPTS = (88.0, 80.0, 60.0, 40.0, 5.0, 200.0)  # of the pool's examples
OUTPUTS = (0.0, 180.0, 0.0, 180.0, 180.0, 0.0)


@pytest.fixture
def pool() -> Pool:
    pairs = np.hstack([unit(*PROMPTS), unit(*OUTPUTS)]) / np.float32(np.sqrt(2))
    return small_pool(
        len(PROMPTS),
        embeddings=lambda: pairs,
        embed=lambda texts: unit(*(ANGLES[text] for text in texts)),
    )


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def select(pool: Pool, path: str, size: int, **options: Any) -> list[int]:
    settings = StrategySettings(strategy="similar_to", options={"path": path, **options})
    return choose(settings, pool, size, seed=0).tolist()


def test_each_target_in_turn_takes_its_nearest_that_is_left(pool: Pool, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"instruction": "north"}, {"instruction": "east"})
    assert select(pool, path, 5) == [0, 4, 1, 3, 2]
    assert select(pool, path, 3) == [0, 4, 1]


def test_the_most_similar_to_any_and_to_all(pool: Pool, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"instruction": "north"}, {"instruction": "east"})
    # Distances to the nearer of the two: 2, 10, 30, 40, 5, 110 degrees.
    assert select(pool, path, 6, by="max") == [0, 4, 1, 2, 3, 5]
    # The mean cosine with both falls with the distance from 45 degrees.
    assert select(pool, path, 6, by="mean") == [3, 2, 1, 4, 0, 5]


def test_targets_with_responses_are_compared_as_pairs(pool: Pool, tmp_path: Path) -> None:
    north = {"instruction": "north", "output": "no"}
    assert select(pool, write(tmp_path / "t.jsonl", north), 3) == [1, 3, 4]
    assert select(pool, write(tmp_path / "t.jsonl", north | {"output": "yes"}), 2) == [0, 2]


def test_a_target_that_is_evaluated_on_is_refused_with_its_line(pool: Pool, tmp_path: Path) -> None:
    rows = {"instruction": "north"}, {"instruction": " east \n", "input": None}
    path = write(tmp_path / "t.jsonl", *rows)
    asked = small_pool(6, embed=pool.embed, evaluated=lambda: frozenset([example_id("east", "")]))
    with pytest.raises(SelectionError, match=r"t\.jsonl, line 2: .*in the evaluation set.*'east'"):
        select(asked, path, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no targets"),
        ([{"instructions": "north"}], "line 1: no field 'instruction'; did you mean 'instructions"),
        ([{"instruction": "  "}], "line 1: empty instruction"),
        ([{"instruction": "north"}, {"instruction": 3}], "line 2: field 'instruction' is not text"),
        (
            [{"instruction": "north", "output": "yes"}, {"instruction": "east"}],
            "line 2: no output, but other targets have one",
        ),
    ],
)
def test_a_file_that_says_no_targets_is_refused(
    rows: list[dict[str, Any]], message: str, pool: Pool, tmp_path: Path
) -> None:
    with pytest.raises(SelectionError, match=message):
        select(pool, write(tmp_path / "t.jsonl", *rows), 2)


def test_what_is_in_the_file_is_part_of_what_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARGETS", str(tmp_path))
    settings = StrategySettings(strategy="similar_to", options={"path": "${TARGETS}/t.jsonl"})
    with pytest.raises(SelectionError, match=r"option path: no such file: .*t\.jsonl"):
        contents_of(settings)
    write(tmp_path / "t.jsonl", {"instruction": "north"})
    first = contents_of(settings)
    assert contents_of(settings) == first
    write(tmp_path / "t.jsonl", {"instruction": "east"})
    assert contents_of(settings) != first
    assert contents_of(StrategySettings(strategy="random")) == []
