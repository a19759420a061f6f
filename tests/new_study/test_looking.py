"""What is seen of a file: its format or columns, put to the test on its own rows."""

from pathlib import Path
from typing import Any

import pytest

from im_assets.candidates.files import SourceError
from im_assets.new_study.looking import NoFormat, look
from im_assets.new_study.names import guess
from tests.new_study.own_files import write_all, write_lines


@pytest.mark.parametrize(
    ("kind", "settings", "language"),
    [
        ("german", {"instruction": "Frage", "output": "Antwort", "id": "Nr"}, "de"),
        ("tabs", {"instruction": "prompt", "output": "completion"}, "en"),
        ("chinese", {"instruction": "指令", "output": "回答"}, "zh"),
        ("code", {"instruction": "question", "output": "answer", "category": "topic"}, None),
    ],
)
def test_columns_are_known_by_their_names_in_any_language(
    tmp_path: Path, kind: str, settings: dict[str, str], language: str | None
) -> None:
    seen = look(write_all(tmp_path)[kind], {})
    assert seen.settings == {"format": "fields", "fields": settings}
    assert seen.guessed
    assert language in (None, next(iter(seen.languages)))
    assert (seen.rows, seen.whole) == (30, True)


def test_what_is_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    seen = look(write_all(tmp_path)["german"], {})
    assert (seen.usable, dict(seen.faults)) == (28, {"the output is empty": 2})
    assert seen.separated_by == "semicolons"


@pytest.mark.parametrize(
    ("row", "format_"),
    [
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca"),
        ({"instruction": "a", "context": "c", "response": "b"}, "dolly"),
        ({"messages": [{"role": "user", "content": "a"},
                       {"role": "assistant", "content": "b"}]}, "messages"),
        ({"conversations": [{"from": "human", "value": "a"},
                            {"from": "gpt", "value": "b"}], "title": "t"}, "sharegpt"),
    ],
)  # fmt: skip
def test_known_formats_are_known(tmp_path: Path, row: dict[str, Any], format_: str) -> None:
    seen = look(write_lines(tmp_path / "a.jsonl", [row] * 3), {})
    assert seen.settings == {"format": format_}
    assert not seen.guessed


def test_the_format_that_reads_most_rows_is_taken(tmp_path: Path) -> None:
    """A column named as a format's, with nothing of it in most rows."""
    rows: list[dict[str, Any]] = [{"question": f"q{i}", "answer": "a"} for i in range(9)]
    rows.append({"question": "q", "answer": "a", "messages": "none", "instruction": "x",
                 "output": "y"})  # fmt: skip
    seen = look(write_lines(tmp_path / "a.jsonl", rows), {})
    assert seen.settings["fields"] == {"instruction": "question", "output": "answer"}
    assert seen.usable == 10


def test_a_list_of_references_is_found(tmp_path: Path) -> None:
    path = write_all(tmp_path)["evaluation"]
    fields = {"instruction": "prompt"}
    expected = {"format": "fields", "fields": fields, "outputs": "references"}
    assert look(path, {}, evaluation=True).settings == expected
    with pytest.raises(NoFormat):  # as training data it has no output
        look(path, {})


def test_columns_that_say_nothing_are_shown_with_what_to_write(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"links": f"one {i}", "rechts": 7} for i in range(5)])
    with pytest.raises(NoFormat) as refused:
        look(path, {})
    said = str(refused.value)
    assert f"{path}: no format reads these rows (5 looked at)" in said
    assert "column 'links': text, in 5 rows, as 'one 0'" in said
    assert "column 'rechts': int, in 5 rows, as '7'" in said
    assert 'FIELDS="instruction=COLUMN output=COLUMN' in said


def test_named_columns_are_used_and_their_faults_told(tmp_path: Path) -> None:
    rows = [{"links": f"one {i}", "rechts": f"two {i}"} for i in range(5)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    fields = {"instruction": "links", "output": "rechts"}
    seen = look(path, fields)
    assert seen.settings == {"format": "fields", "fields": fields}
    assert not seen.guessed
    numbers = write_lines(tmp_path / "b.jsonl", [row | {"rechts": 7} for row in rows])
    with pytest.raises(NoFormat, match="reads 0 of them; 5: field 'rechts' is not text but int"):
        look(numbers, fields)


def test_only_the_first_rows_of_a_large_file_are_read(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{i}", "output": f"a{i}"} for i in range(1500)]
    seen = look(write_lines(tmp_path / "a.jsonl", rows), {})
    assert (seen.rows, seen.whole, seen.usable) == (1000, False, 1000)


def test_an_empty_file_and_one_without_rows_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(SourceError, match=r"a\.jsonl: is empty"):
        look(tmp_path / "a.jsonl", {})
    (tmp_path / "b.jsonl").write_text("not json\n" * 3)
    with pytest.raises(NoFormat, match="no row has fields; 3 rows: "):
        look(tmp_path / "b.jsonl", {})


def test_own_ids_are_found_in_any_format(tmp_path: Path) -> None:
    rows = [{"uuid": f"u{i}", "instruction": "a", "output": "b"} for i in range(3)]
    seen = look(write_lines(tmp_path / "a.jsonl", rows), {})
    assert seen.settings == {"format": "alpaca", "fields": {"id": "uuid"}}
    assert not seen.guessed
    named = [row | {"id": "x"} for row in rows]  # read by its name
    assert look(write_lines(tmp_path / "b.jsonl", named), {}).settings == {"format": "alpaca"}
    floats = [row | {"uuid": 0.5} for row in rows]  # no ids
    assert look(write_lines(tmp_path / "c.jsonl", floats), {}).settings == {"format": "alpaca"}


def test_no_column_is_two_fields() -> None:
    assert guess(["input", "output"]) == {"instruction": "input", "output": "output"}
    assert guess(["subject", "body", "answer"]) == {
        "instruction": "subject", "input": "body", "output": "answer"
    }  # fmt: skip
    assert guess(["User Prompt", "Prompt", "ANSWER"]) == {
        "instruction": "Prompt", "output": "ANSWER"
    }  # fmt: skip
    assert guess(["left", "right"]) == {}
