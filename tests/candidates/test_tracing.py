"""From a row back to its place: the file is opened there, and the row is found."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from im_assets.candidates.cleaning import clean
from im_assets.candidates.leaks import Leaks
from im_assets.candidates.ngrams import WordHashes
from im_assets.candidates.reading import SourceError, read_source
from im_assets.candidates.references import references
from im_assets.candidates.tracing import Place, version_of_rows, with_place
from im_resources.study import CleaningSettings, DataSource
from tests.candidates.files_for_tests import KINDS, write_rows

QUESTIONS = ["什么是铁?", "What is tin?\nSay it\nin lines.", "def f(x):\n\treturn x", 'Why, "so"?']
POEM = "the wind has blown the last of all the yellow leaves into the cold grey river"


def plain(question: str, number: int) -> dict[str, Any]:
    return {"id": f"row-{number}", "instruction": question, "output": f"It is\n{number}."}


def sharegpt(question: str, number: int) -> dict[str, Any]:
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": f"It is {number}."}]
    return {"id": f"row-{number}", "conversations": said}


def found_at(path: Path, line: int) -> Any:
    """The row at this line, by other means than the reader's."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content, path = gzip.decompress(content), path.with_suffix("")
    if path.suffix == ".zst":
        stream = pa.CompressedInputStream(pa.BufferReader(content), "zstd")
        content, path = stream.read(), path.with_suffix("")
    if path.suffix == ".parquet":
        return pq.read_table(io.BytesIO(content)).slice(line - 1, 1).to_pylist()[0]
    text = content.decode()
    if path.suffix == ".json":
        return json.loads(text)[line - 1]
    lines = text.splitlines(keepends=True)
    if path.suffix == ".jsonl":
        return json.loads(lines[line - 1])
    between = "\t" if path.suffix == ".tsv" else ","
    cells = next(csv.reader(lines[line - 1 :], delimiter=between))
    return dict(zip(next(csv.reader(lines[:1], delimiter=between)), cells, strict=True))


def cleaned(
    source: DataSource, evaluation: pd.DataFrame | None = None, withdrawn: tuple[str, ...] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    return clean(*read_source("mine", source), CleaningSettings(), evaluation, withdrawn)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["alpaca", "sharegpt"])
def test_every_kept_row_is_found_where_it_says(tmp_path: Path, kind: str, shape: str) -> None:
    make = plain if shape == "alpaca" else sharegpt
    path = write_rows(tmp_path, kind, [make(q, i) for i, q in enumerate(QUESTIONS)])
    kept, _ = cleaned(DataSource(path=str(path), format=shape))
    assert kept["own_id"].tolist() == ["row-0", "row-1", "row-2", "row-3"]
    for row in kept.to_dict("records"):
        assert row["file"] == path.name
        there = found_at(path, row["line"])
        assert there["id"] == row["own_id"]
        assert row["output"][-2:] in str(there)


def test_rows_of_several_files_are_found_in_theirs(tmp_path: Path) -> None:
    for number, name in enumerate(("en/a", "zh/a")):
        (tmp_path / name).mkdir(parents=True)
        write_rows(tmp_path / name, "jsonl", [plain(QUESTIONS[number], number)])
        write_rows(tmp_path / name, "csv.gz", [plain(QUESTIONS[number + 2], number + 2)])
    kept, _ = cleaned(DataSource(path=f"{tmp_path}/**/rows.*"))
    assert len(kept) == 4
    for row in kept.to_dict("records"):
        assert found_at(tmp_path / row["file"], row["line"])["id"] == row["own_id"]
    assert not kept["file"].str.startswith("/").any()


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("id", [7, "7", None, ["x"], True, "\ud800"], ["7", "7", None, None, None, None]),
        ("key", [7, "a-1", None, 8.0], ["7", "a-1", None, "8"]),
    ],
)
def test_ids_are_texts_and_no_row_is_lost_for_the_lack_of_one(
    tmp_path: Path, column: str, values: list[Any], expected: list[str | None]
) -> None:
    rows = [{"instruction": f"Q{i}", "output": "A", column: v} for i, v in enumerate(values)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = None if column == "id" else {"id": column}
    found, rejected = read_source("mine", DataSource.model_validate(
        {"path": str(path), "fields": fields}))  # fmt: skip
    assert rejected.empty
    assert found["own_id"].tolist() == expected


def test_whole_numbers_with_gaps_are_ids_without_a_point(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = pd.DataFrame({"instruction": ["a", "b"], "output": ["A", "B"], "n": [7, None]})
    rows.to_parquet(path)
    source = DataSource.model_validate({"path": str(path), "fields": {"id": "n"}})
    assert read_source("mine", source)[0]["own_id"].tolist() == ["7", None]


@pytest.mark.parametrize("shape", ["sharegpt", "messages"])
def test_conversations_take_a_column_of_their_own(tmp_path: Path, shape: str) -> None:
    turns = {
        "sharegpt": {"conversations": sharegpt("Hi", 1)["conversations"]},
        "messages": {"messages": [{"role": "user", "content": "Hi"},
                                  {"role": "assistant", "content": "Hello"}]},
    }[shape]  # fmt: skip
    path = write_rows(tmp_path, "parquet", [{**turns, "conversation_id": "c-9", "id": "other"}])
    source = {"path": str(path), "format": shape, "fields": {"id": "conversation_id"}}
    assert read_source("mine", DataSource.model_validate(source))[0]["own_id"].tolist() == ["c-9"]


def test_an_id_that_no_row_has_is_told(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "jsonl", [plain("Q", 1) | {"uuid": "u"}])
    source = DataSource.model_validate({"path": str(path), "fields": {"id": "uid"}})
    with pytest.raises(SourceError, match=r"no row of .* has the field 'uid'.*did you mean 'uuid'"):
        read_source("mine", source)


def test_a_column_that_is_read_as_something_else_is_no_id(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "jsonl", [{"id": "Name a colour.", "a": "Blue."}])
    fields = {"instruction": "id", "output": "a"}
    source = {"path": str(path), "format": "fields", "fields": fields}
    assert read_source("mine", DataSource.model_validate(source))[0]["own_id"].tolist() == [None]


def test_a_dropped_row_names_itself_and_the_row_that_is_kept(tmp_path: Path) -> None:
    long = "Please list all of the many red apples that lie in the old brown basket by the door"
    a = write_rows(tmp_path, "jsonl", [plain(long, 0), plain("Why?", 1)])
    rows = [plain("Why?", 1), plain(f"Now {long}", 0), plain(f"Now {long}", 0), plain("", 3)]
    rows = [row | {"id": f"twin-{i}"} for i, row in enumerate(rows)]
    b = write_rows(tmp_path, "csv", [*rows, plain("Say it.", 4) | {"output": POEM}])
    held_out = write_rows(tmp_path, "json", [{"id": 9, "instruction": "Poem", "output": POEM}])
    evaluation, _ = references(*read_source("evaluation", DataSource(path=str(held_out))))
    source = DataSource(path=(str(a), str(b)))
    _, out = clean(*read_source("mine", source), CleaningSettings(near_duplicate_similarity=0.7),
                   evaluation)  # fmt: skip
    told = out.astype(object).mask(out.isna(), None)
    assert told[["kind", "own_id", "other_source", "other_file", "other_line", "other_own_id"]
                ].to_numpy().tolist() == [
        ["exact duplicate", "twin-0", "mine", "rows.jsonl", 2, "row-1"],
        ["near duplicate", "twin-1", "mine", "rows.jsonl", 1, "row-0"],
        ["exact duplicate", "twin-2", "mine", "rows.jsonl", 1, "row-0"],
        ["empty", "twin-3", None, None, None, None],
        ["leaks", "row-4", "evaluation", "rows.json", 1, "9"],
    ]  # fmt: skip
    assert told["reason"].iloc[0] == "exact duplicate of mine (rows.jsonl) line 2"
    assert told["reason"].iloc[2].endswith("which is a near duplicate of mine (rows.jsonl) line 1")
    assert "evaluation (rows.json) line 1: has 100%" in told["reason"].iloc[4]
    for row in told.to_dict("records"):
        assert row["file"] == "rows.csv"
        assert found_at(b, row["line"])["id"] == row["own_id"]


def test_a_row_that_cannot_be_read_names_its_id(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "r-1", "instruction": "Q", "output": 7}\n{oops\n')
    _, rejected = read_source("mine", DataSource(path=str(path)))
    assert rejected[["line", "own_id"]].to_numpy().tolist() == [[1, "r-1"], [2, None]]


def test_own_ids_of_what_was_withdrawn_are_told_nowhere(tmp_path: Path) -> None:
    long = "Please list all of the many red apples that lie in the old brown basket by the door"
    rows = [plain(long, 0), plain(long, 0), plain(f"Now {long}", 0), plain("Why?", 3)]
    rows = [row | {"id": f"person-{i}"} for i, row in enumerate(rows)]
    source = DataSource(path=str(write_rows(tmp_path, "jsonl", rows)))
    gone = cleaned(source)[0]["example_id"].iloc[0]
    kept, out = clean(*read_source("mine", source), CleaningSettings(near_duplicate_similarity=0.7),
                      None, {gone})  # fmt: skip
    assert kept["own_id"].tolist() == ["person-3"]
    assert out["kind"].tolist() == ["withdrawn", "exact duplicate", "near duplicate"]
    assert out["own_id"].fillna("").tolist() == ["", "", "person-2"]
    assert out["other_line"].tolist()[1:] == [1, 1]
    assert out["other_own_id"].isna().all()


def test_the_same_rows_elsewhere_are_the_same_data(tmp_path: Path) -> None:
    rows = [plain(question, i) for i, question in enumerate(QUESTIONS)]
    before, _ = cleaned(DataSource(path=str(write_rows(tmp_path, "jsonl", rows))))
    moved = [row | {"id": f"new-{i}"} for i, row in enumerate(rows[::-1])]
    after, _ = cleaned(DataSource(path=str(write_rows(tmp_path, "csv", moved))))
    assert set(after["file"]) == {"rows.csv"}
    assert after["own_id"].tolist() == ["new-0", "new-1", "new-2", "new-3"]
    assert version_of_rows(after) == version_of_rows(before)
    assert version_of_rows(after.assign(source="other")) != version_of_rows(before)
    assert version_of_rows(after.iloc[1:]) != version_of_rows(before)
    # Of an evaluation set the first instructions may be taken.
    assert version_of_rows(after, ordered=True) != version_of_rows(before, ordered=True)


def test_tables_from_before_there_were_places_are_read_as_unknown() -> None:
    old = pd.DataFrame({"eval_id": ["e"], "instruction": ["Poem"], "input": "", "output": [POEM]})
    leaks, hashes = Leaks(old, 4, 0.6), WordHashes()
    [leak] = leaks.judge(leaks.count([(0, hashes.of("Say it."), hashes.of(POEM))])).values()
    assert "leaks evaluation row e, its place unknown: has 100%" in str(leak)
    rows = with_place(old.assign(source="mine", line=3))
    assert str(Place.of(rows.iloc[0].to_dict())) == "mine line 3"
    assert rows["own_id"].isna().all()
