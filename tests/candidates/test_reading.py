"""Every format reads the same from every kind of file."""

from pathlib import Path
from typing import Any

import pytest

from im_assets.candidates.reading import read, read_source
from im_resources.study import DataSource
from tests.candidates.files_for_tests import KINDS, write_rows

ROWS = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue, the sky's.", "category": ""},
    {"instruction": "Übersetze:\n„ja“", "input": "to English", "output": "yes ✓", "category": "qa"},
]


def _turns(row: dict[str, str], names: tuple[str, str, str, str]) -> list[dict[str, str]]:
    role, content, user, assistant = names
    said = [("system", "Be kind."), (user, "Hello?"), (assistant, "Hello.")]
    said += [(user, row["instruction"]), (assistant, row["output"])]
    return [{role: who, content: what} for who, what in said]


SHAPES: dict[str, list[dict[str, Any]]] = {
    "alpaca": ROWS,
    "dolly": [
        {
            "instruction": row["instruction"],
            "context": row["input"],
            "response": row["output"],
            "category": row["category"],
        }
        for row in ROWS
    ],
    "messages": [
        {"messages": _turns(row, ("role", "content", "user", "assistant"))} for row in ROWS
    ],
    "sharegpt": [{"conversations": _turns(row, ("from", "value", "human", "gpt"))} for row in ROWS],
    "fields": [
        {"q": row["instruction"], "ctx": row["input"], "a": row["output"], "kind": row["category"]}
        for row in ROWS
    ],
}
MAPPING = {"instruction": "q", "input": "ctx", "output": "a", "category": "kind"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip(tmp_path: Path, kind: str, shape: str) -> None:
    path = write_rows(tmp_path, kind, SHAPES[shape])
    source = DataSource.model_validate(
        {
            "path": str(path),
            "format": shape,
            "fields": MAPPING if shape == "fields" else None,
        }
    )
    rows, rejected = read_source("mine", source)
    assert rejected.empty
    assert set(rows["source"]) == {"mine"}
    assert rows["instruction"].tolist() == [row["instruction"] for row in ROWS]
    assert rows["output"].tolist() == [row["output"] for row in ROWS]
    if shape in ("messages", "sharegpt"):
        assert [turns.count('{"role"') for turns in rows["turns"]] == [4, 4]
    else:
        assert rows["input"].tolist() == [row["input"] for row in ROWS]
        assert rows["category"].tolist() == [row["category"] for row in ROWS]
    if not kind.startswith(("csv", "tsv")):
        assert rows["line"].tolist() == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_sets_keep_their_lists_of_outputs(tmp_path: Path, kind: str) -> None:
    content = [{"instruction": "Hi?", "outputs": ["Hello.", "Hé ✓"]}]
    source = DataSource(path=str(write_rows(tmp_path, kind, content)), outputs="outputs")
    rows, _ = read_source("evaluation", source)
    assert rows["outputs"].tolist() == [["Hello.", "Hé ✓"]]
    assert "output" not in rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_rows_are_read_where_they_are_asked_for(tmp_path: Path, kind: str) -> None:
    content = [{"instruction": f"Question {i}", "output": "Answer"} for i in range(50)]
    path = str(write_rows(tmp_path, kind, content))
    rows, _, usable = read("s", DataSource(path=path, limit=3, take="first"))
    assert rows["instruction"].tolist() == ["Question 0", "Question 1", "Question 2"]
    assert usable is None  # nobody has looked
    assert read("s", DataSource(path=path, limit=51, take="first")).usable == 50


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_takes_the_same_sample_of_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    content = [{"instruction": f"Question {i}", "output": "Answer"} for i in range(50)]
    content.insert(7, {"instruction": "Without an output"})
    path = str(write_rows(tmp_path, kind, content))
    rows, rejected, usable = read("s", DataSource(path=path, limit=3))
    # Known for good: a study's data must not change with a version, a machine or a format.
    assert rows["instruction"].tolist() == ["Question 0", "Question 8", "Question 34"]
    # What cannot be used takes no place and is told; an empty field of CSV or TSV is an empty text.
    assert (usable, rejected["line"].tolist()) == ((51, []) if "sv" in kind else (50, [8]))
    other = read("s", DataSource(path=path, limit=3, sample_seed=1)).rows
    assert set(other["instruction"]) != set(rows["instruction"])


def test_line_numbers_are_those_of_an_editor(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '\ufeff{"instruction": "a", "output": "b"}\n\n{"instruction": "c", "output": "d"}'
    )
    rows, _ = read_source("s", DataSource(path=str(path)))
    assert rows["line"].tolist() == [1, 3]


def test_paths_expand_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path, "jsonl", ROWS)
    monkeypatch.setenv("IM_TEST_DATA", str(tmp_path))
    rows, _ = read_source("s", DataSource(path="${IM_TEST_DATA}/rows.jsonl"))
    assert len(rows) == 2


def test_an_evaluation_set_says_what_is_right(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": "2 + 2?", "output": "It is 4.", "answer": "4", "pattern": r"\b4\b"},
        {"instruction": "2 + 3?", "output": "It is 5.", "answer": 5, "pattern": None},
        {"instruction": "Sing.", "output": "La.", "answer": ["la"], "pattern": ""},
    ]
    source = DataSource(path=str(write_rows(tmp_path, "jsonl", rows)))
    read, rejected = read_source("evaluation", source, verifiable=True)
    assert rejected.empty
    assert read["answer"].tolist() == ["4", "5", ""]
    assert read["pattern"].tolist() == [r"\b4\b", "", ""]
    assert "answer" not in read_source("candidates", source)[0]


def test_a_column_of_another_use_is_no_answer_by_its_name(tmp_path: Path) -> None:
    rows = [{"question": "2 + 2?", "answer": "Four, of course.", "final": "4"}]
    path = str(write_rows(tmp_path, "jsonl", rows))
    fields: dict[Any, str] = {"instruction": "question", "output": "answer"}
    plain = DataSource(path=path, format="fields", fields=fields)
    named = DataSource(path=path, format="fields", fields=fields | {"answer": "final"})
    assert read_source("evaluation", plain, verifiable=True)[0]["answer"].tolist() == [""]
    assert read_source("evaluation", named, verifiable=True)[0]["answer"].tolist() == ["4"]
