"""Scores that somebody else computed: read from the sources' rows or a file, and never half."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from im_assets.candidates.content import example_id
from im_assets.scoring.registry import IndicatorError, chosen, columns_read
from im_assets.scoring.scorer import score_missing
from im_resources.study import ScoringSettings
from im_resources.warehouse import Warehouse
from tests.candidates.files_for_tests import write_rows
from tests.scoring.demo_models import demo_study, models_of

TEXTS = [("Add 2 and 3.", "", "5"), ("Name a colour.", "of the sky", "Blue."), ("Greet.", "", "Hi")]
VALUES = [0.5, -1.0, 3.0]
EXAMPLES = pd.DataFrame(
    {
        "example_id": [example_id(*texts) for texts in TEXTS],
        "source": "mine",
        "line": [1, 2, 4],
        "instruction": [t[0] for t in TEXTS],
        "input": [t[1] for t in TEXTS],
        "output": [t[2] for t in TEXTS],
        "quality": VALUES,
        "id": ["a", "7", "c"],
    }
)
Score = Callable[..., pd.DataFrame]


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """Scores the examples by one precomputed indicator; all calls share a warehouse."""

    def scored(examples: pd.DataFrame = EXAMPLES, **options: Any) -> pd.DataFrame:
        study = demo_study({"q": {"backend": "precomputed", "options": options}, "mtld": "mtld"})
        warehouse = Warehouse(tmp_path / "scores.duckdb")
        scores, _ = score_missing(examples, chosen(study.scoring), models_of(study), warehouse)
        assert set(scores["indicator"]) == {"q", "mtld"}
        return (
            scores[scores["indicator"] == "q"].set_index("example_id").loc[examples["example_id"]]
        )

    return scored


def file_of(folder: Path, kind: str, **columns: list[Any]) -> str:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return str(write_rows(folder, kind, rows))


def test_a_column_is_an_indicator(score: Score) -> None:
    assert score(column="quality")["value"].tolist() == VALUES


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "json.gz"])
def test_a_file_joins_by_what_it_has(tmp_path: Path, score: Score, kind: str) -> None:
    by_hash = file_of(tmp_path, kind, example_id=EXAMPLES["example_id"].tolist(), score=VALUES)
    assert score(path=by_hash, column="score")["value"].tolist() == VALUES
    shuffled = EXAMPLES.sample(frac=1, random_state=1)  # the file has an order of its own
    texts = {name: shuffled[name].tolist() for name in ("instruction", "input", "output")}
    by_text = file_of(tmp_path, kind, **texts, score=shuffled["quality"].tolist())
    assert score(path=by_text, key="content", column="score")["value"].tolist() == VALUES
    by_id = file_of(tmp_path, kind, id=["c", "a", "7"], score=[3.0, 0.5, -1.0])
    assert score(path=by_id, key="id", column="score")["value"].tolist() == VALUES


def test_a_number_as_id_is_the_same_as_its_text(tmp_path: Path, score: Score) -> None:
    path = tmp_path / "scores.jsonl"
    rows = [{"id": "a", "s": 1}, {"id": 7, "s": 2}, {"id": "c", "s": 3}, {"id": "other", "s": 9}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert score(path=str(path), key="id", column="s")["value"].tolist() == [1, 2, 3]


def test_other_content_is_another_score_and_the_same_is_the_same(
    tmp_path: Path, score: Score
) -> None:
    ids = EXAMPLES["example_id"].tolist()
    path = file_of(tmp_path, "jsonl", example_id=ids, score=VALUES)
    first = score(path=path, column="score")
    pd.testing.assert_frame_equal(first, score(path=path, column="score"))
    file_of(tmp_path, "jsonl", example_id=ids, score=[*VALUES[:2], 4.0])
    second = score(path=path, column="score")
    assert second["value"].tolist() == [0.5, -1.0, 4.0]
    assert set(first["fingerprint"]).isdisjoint(second["fingerprint"])
    assert score(column="quality")["value"].tolist() == VALUES
    other = score(EXAMPLES.assign(quality=[0.5, -1.0, 4.0]), column="quality")
    assert other["value"].tolist() == [0.5, -1.0, 4.0]


def test_what_is_missing_is_counted_and_the_first_named(tmp_path: Path, score: Score) -> None:
    holes = EXAMPLES.assign(quality=[0.5, np.nan, np.nan])
    with pytest.raises(IndicatorError, match=r"2 of 3 examples .*column 'quality'.*mine line 2"):
        score(holes, column="quality")
    path = file_of(tmp_path, "csv", id=["a", "7"], score=["0.5", ""])
    with pytest.raises(IndicatorError, match=r"2 of 3 examples .*rows\.csv by 'id'.*mine line 2"):
        score(path=path, key="id", column="score")
    with pytest.raises(IndicatorError, match=r"without the column 'quality'.*materialize"):
        score(EXAMPLES.drop(columns="quality"), column="quality")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "s": 1}\n{"id": "a", "s": 2}', "line 2: id 'a' has two values, 1.0 and 2.0"),
        ('{"id": "a", "s": "good"}', "line 1: field 's' is no finite number: 'good'"),
        ('{"id": "a", "s": true}', "line 1: field 's' is no finite number: True"),
        ('{"id": "a", "s": 1e999}', "line 1: field 's' is no finite number: inf"),
        ('{"id": "a", "t": 1}', "line 1: no field 's'"),
        ('{"ids": "a", "s": 1}', "line 1: no field 'id'; did you mean 'ids'?"),
        ('{"id": ["a"], "s": 1}', "line 1: field 'id' is no id but list"),
        ('{"id": "a", "s": ', "line 1: bad JSON"),
        ("[1]", "line 1: not an object"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(
    tmp_path: Path, score: Score, line: str, message: str
) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(line)
    with pytest.raises(IndicatorError, match=re.escape(message)):
        score(path=str(path), key="id", column="s")


def test_no_such_file(tmp_path: Path, score: Score) -> None:
    with pytest.raises(IndicatorError, match="no such file"):
        score(path=str(tmp_path / "scores.jsonl"), column="s")


def columns(**options: Any) -> dict[str, str]:
    indicator = {"backend": "precomputed", "options": options}
    settings = ScoringSettings.model_validate({"indicators": {"q": indicator}})
    return dict(columns_read(settings))


def test_the_sources_keep_what_is_read_of_them() -> None:
    assert columns(column="quality") == {"quality": "number"}
    assert columns(path="s.csv", column="score", key="id") == {"id": "text"}
    assert columns(path="s.csv", column="score", key="content") == {}
    assert columns(path="s.csv", column="score") == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "options.column: precomputed needs this option"),
        ({"column": 3}, "options.column: Input should be a valid string (found 3)"),
        ({"column": "output"}, "q: the column 'output' cannot be kept"),
        ({"column": "Line"}, "q: the column 'Line' cannot be kept"),
        ({"column": "my score"}, "q: the column 'my score' cannot be kept"),
        ({"column": "s", "key": "id"}, "give its `path` too"),
    ],
)
def test_options_are_checked_when_the_profile_is_read(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(IndicatorError, match=re.escape(message)):
        columns(**options)
