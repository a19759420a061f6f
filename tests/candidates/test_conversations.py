"""Conversations as people have them: what is read, joined, counted, and what an example is."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from im_assets.candidates.checks import leaking_examples
from im_assets.candidates.cleaning import clean
from im_assets.candidates.content import example_id, identity_of
from im_assets.candidates.format_registry import NOT_TEXT
from im_assets.candidates.gathering import not_text_of
from im_assets.candidates.reading import read_source
from im_assets.candidates.references import references
from im_resources.study import CleaningSettings, DataSource
from im_resources.turns import Turn, read_turns
from tests.candidates.files_for_tests import write_rows

ALPACA = {"instruction": "Name a colour.", "output": "Blue."}
LONG = "please count all of the red apples that lie in the old basket"


def said(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def read(
    folder: Path, *conversations: list[dict[str, Any]], kind: str = "jsonl", **settings: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [{"messages": turns} for turns in conversations]
    path = write_rows(folder, kind, rows)
    return read_source("chats", DataSource(path=str(path), format="messages", **settings))


def cleaned(rows: pd.DataFrame, rejected: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return clean(rows, rejected, CleaningSettings(), None)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_the_system_and_all_turns_are_kept_and_the_last_exchange_stands_in_the_columns(
    tmp_path: Path, kind: str
) -> None:
    turns = said(
        ("system", "Be brief. 简短"), ("user", "Hi"), ("assistant", "Hello."),
        ("user", "And a colour?"), ("assistant", "Blue."),
    )  # fmt: skip
    rows, rejected = read(tmp_path, turns, kind=kind)
    kept, _ = cleaned(rows, rejected)
    [row] = kept.to_dict("records")
    assert (row["instruction"], row["input"], row["output"]) == ("And a colour?", "", "Blue.")
    assert read_turns(row["turns"]) == (
        Turn("system", "Be brief. 简短"), Turn("user", "Hi"), Turn("assistant", "Hello."),
        Turn("user", "And a colour?"),
    )  # fmt: skip


def test_one_turn_and_its_reply_are_the_example_that_they_are_in_any_format(tmp_path: Path) -> None:
    alone = said(("user", " Name a colour."), ("assistant", "Blue.\n"))
    kept, _ = cleaned(*read(tmp_path, alone))
    path = write_rows(tmp_path, "json", [ALPACA])
    plain, _ = cleaned(*read_source("chats", DataSource(path=str(path))))
    assert list(kept.columns) == list(plain.columns)  # no column of turns
    assert kept["example_id"].tolist() == plain["example_id"].tolist() == ["e15f8121ef23388f"]


def test_every_turn_takes_part_in_the_id(tmp_path: Path) -> None:
    last = [("user", "Name a colour."), ("assistant", "Blue.")]
    conversations = [
        said(*last),
        said(("system", "Be kind."), *last),
        said(("system", "Be brief."), *last),
        said(("user", "Hi"), ("assistant", "Hello."), *last),
        said(("user", "Hi"), ("assistant", "Good day to you, dear friend."), *last),
    ]
    rows, rejected = read(tmp_path, *conversations)
    ids = [identity_of(row) for row in rows.to_dict("records")]
    assert len(set(ids)) == 5
    assert ids[0] == example_id("Name a colour.", "", "Blue.")
    kept, _ = cleaned(rows, rejected)
    assert kept["example_id"].tolist() == ids
    assert kept["turns"].isna().tolist() == [True, False, False, False, False]


def test_turns_of_one_role_are_joined_and_parts_keep_their_text(tmp_path: Path) -> None:
    turns = said(
        ("user", "Look."),
        ("user", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "?"}]),
        ("assistant", [{"type": "text", "text": "A"}, {"type": "text", "text": "cat."}]),
        ("assistant", "It sleeps."),
    )
    rows, _ = read(tmp_path, turns)
    assert rows["instruction"].tolist() == ["Look.\n\n?"]
    assert rows["output"].tolist() == ["A\ncat.\n\nIt sleeps."]
    assert rows[NOT_TEXT].tolist() == [{"image_url": 1}]


def test_what_tools_say_is_context_and_their_calls_are_counted(tmp_path: Path) -> None:
    turns: list[dict[str, Any]] = said(("user", "Is it warm?"))
    turns.append({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]})
    turns += said(("tool", "21 degrees"), ("assistant", "Yes."))
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": turns, "tools": [{"name": "weather"}]}) + "\n")
    rows, rejected = read_source("chats", DataSource(path=str(path), format="messages"))
    [row] = cleaned(rows, rejected)[0].to_dict("records")
    assert (row["instruction"], row["input"], row["output"]) == (
        "Is it warm?",
        "21 degrees",
        "Yes.",
    )
    assert read_turns(row["turns"]) == (Turn("user", "Is it warm?"), Turn("tool", "21 degrees"))
    assert not_text_of(rows) == {"chats": {"tools": 1, "tool_calls": 1}}


def test_what_nothing_learns_from_is_counted(tmp_path: Path) -> None:
    turns = said(("assistant", "Welcome!"), ("user", "Name a colour."), ("assistant", "Blue."),
                 ("user", "Thanks."))  # fmt: skip
    rows, rejected = read(tmp_path, turns, turns)
    assert not_text_of(rows) == {
        "chats": {"turn before the first user turn": 2, "turn after the last reply": 2}
    }
    kept, _ = cleaned(rows, rejected)
    assert kept["example_id"].tolist() == ["e15f8121ef23388f"]
    assert NOT_TEXT not in kept


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (said(("user", "Hi"), ("narrator", "Night fell.")), "turn 2 .* role 'narrator'; known: "),
        (said(("user", "Hi"), ("assistant", [{"type": "image"}])), "not text but image"),
        (said(("user", "Hi"), ("assistant", None)), "'messages.content' is missing"),
        (said(("user", "Hi"), ("assistant", ["a", 7])), "'messages.content' is not text but int"),
    ],
)
def test_a_conversation_that_would_lose_its_sense_is_quarantined(
    tmp_path: Path, turns: list[dict[str, Any]], reason: str
) -> None:
    rows, rejected = read(tmp_path, turns)
    assert rows.empty
    assert rejected["reason"].str.contains(reason).all()


def test_an_empty_turn_is_told_by_its_number(tmp_path: Path) -> None:
    last = [("user", "Name a colour."), ("assistant", "Blue.")]
    _, quarantined = cleaned(*read(tmp_path, said(("user", "Hi"), ("assistant", " "), *last)))
    assert quarantined["reason"].tolist() == ["empty turn 2 of 4"]


def test_leaks_and_duplicates_are_looked_for_in_all_turns_but_the_systems(tmp_path: Path) -> None:
    system = ("system", "You are a careful assistant who always answers with the truth alone.")
    evaluation, _ = references(
        *read(tmp_path, said(system, ("user", LONG), ("assistant", "Nine.")))
    )
    asked_before = said(
        ("user", LONG), ("assistant", "Many."), ("user", "Why?"), ("assistant", "?")
    )
    answered = said(
        ("user", "Say it."), ("assistant", LONG), ("user", "Oh."), ("assistant", "Yes.")
    )
    other = said(system, ("user", "Name a colour."), ("assistant", "Blue."))
    rows, rejected = read(tmp_path, asked_before, answered, other)
    kept, quarantined = clean(rows, rejected, CleaningSettings(), evaluation)
    assert quarantined["line"].tolist() == [1, 2]
    assert set(quarantined["kind"]) == {"leaks"}
    assert leaking_examples([kept], evaluation, 8) == []
    whole, _ = cleaned(rows, rejected)
    assert len(leaking_examples([whole], evaluation, 8)) == 2


def test_conversations_that_differ_in_an_early_turn_are_no_near_duplicates(tmp_path: Path) -> None:
    def about(what: str) -> list[dict[str, Any]]:
        early = f"Tell me at length about {what}, its {what} makers and the use of {what}."
        last = [("user", "Thank you, that was quite enough."), ("assistant", "You are welcome.")]
        return said(("user", early), ("assistant", f"{what} is old, and it is used."), *last)

    kept, _ = cleaned(*read(tmp_path, about("glass"), about("paper"), about("glass ")))
    assert kept["line"].tolist() == [1, 2]


def test_an_evaluation_set_may_be_of_conversations(tmp_path: Path) -> None:
    start = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello.")]
    rows = [
        {"messages": said(*start, ("user", "Name a colour.")), "answers": ["Blue.", "Red."]},
        {"messages": said(("user", "Name a colour."), ("assistant", "No.")), "answers": ["Green."]},
    ]
    path = write_rows(tmp_path, "jsonl", rows)
    source = DataSource(path=str(path), format="messages", outputs="answers")
    found, rejected = read_source("evaluation", source, verifiable=True)
    assert not_text_of(found) == {"evaluation": {"reply beside the reference outputs": 1}}
    table, _ = references(found, rejected)
    assert table["output"].tolist() == ["Blue.", "Red.", "Green."]
    assert table["output_index"].tolist() == [0, 1, 0]
    assert table["eval_id"].nunique() == 2  # the same last turn, after another conversation
    assert table["eval_id"].iloc[2] == example_id("Name a colour.", "")
    assert [len(read_turns(t) or ()) for t in table["turns"]] == [4, 4, 0]


def test_sources_with_and_without_conversations_make_one_table(tmp_path: Path) -> None:
    talk, _ = read(tmp_path, said(("system", "Hm."), ("user", "Hi"), ("assistant", "Hello.")))
    path = write_rows(tmp_path, "json", [ALPACA])
    plain, rejected = read_source("plain", DataSource(path=str(path)))
    kept, _ = cleaned(pd.concat([plain, talk], ignore_index=True), rejected)
    assert kept["turns"].isna().tolist() == [True, False]
    assert kept["turns"].iloc[0] is None
