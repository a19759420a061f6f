"""The exported file in the hands of those who train on it: `datasets`, TRL, and the page."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from im_assets.candidates.format_registry import FORMATS
from im_assets.selection.selecting import export_jsonl
from im_resources.study import PROJECT_ROOT
from im_resources.turns import Turn, write_turns

SECTION = "## Training on a selection"
TALK = [
    Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "你好."),
    Turn("user", "Why?"),
]  # fmt: skip
SHAPES = {"messages": "messages", "sharegpt": "conversations"}
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}"
    "<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def selection() -> pd.DataFrame:
    """Two conversations and an instruction alone, ranked."""
    return pd.DataFrame(
        {
            "example_id": ["a", "b", "c"],
            "instruction": ["Why?", "Add.", "Is it warm?"],
            "input": ["", "2 and 3", "21 degrees"],
            "output": ["So it is.", "Five.", "Yes."],
            "turns": [write_turns(TALK), None,
                      write_turns([Turn("user", "Is it warm?"), Turn("tool", "21 degrees")])],
            "rank": [1, 2, 3],
            "predicted_log_loss": [0.1, 0.2, 0.3],
        }
    )  # fmt: skip


def export(selection: pd.DataFrame, folder: Path, shape: str | None) -> Path:
    path = folder / "selection.jsonl"
    write = None if shape is None else FORMATS.get(shape, "format").write
    export_jsonl(selection, path, write=write)
    return path


def loaded(path: Path) -> Any:
    import datasets

    cache = str(path.parent / "cache")
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)


def blocks_of(language: str) -> list[str]:
    """The code in that language of the README's section."""
    text = (PROJECT_ROOT / "README.md").read_text("utf-8").split(SECTION)[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def page_functions() -> dict[str, Any]:
    """What the page's Python defines: its last block, but for the line that uses it."""
    blocks = blocks_of("python")
    defined: dict[str, Any] = {}
    exec(blocks[-1].replace("data = data.map", "# "), defined)
    return defined


@pytest.mark.parametrize("shape", SHAPES)
def test_conversations_load_as_lists_of_turns(
    selection: pd.DataFrame, tmp_path: Path, shape: str
) -> None:
    data = loaded(export(selection, tmp_path, shape))
    assert data.column_names == [
        SHAPES[shape], "example_id", "rank", "predicted_log_loss", "source", "file", "line",
        "own_id", "category",
    ]  # fmt: skip
    role, content = ("role", "content") if shape == "messages" else ("from", "value")
    names = {"messages": ("user", "assistant"), "sharegpt": ("human", "gpt")}[shape]
    user, assistant = names
    talk, alone, _ = data[SHAPES[shape]]
    assert [(turn[role], turn[content]) for turn in talk] == [
        ("system", "Be brief."), (user, "Hi"), (assistant, "你好."), (user, "Why?"),
        (assistant, "So it is."),
    ]  # fmt: skip
    assert [(turn[role], turn[content]) for turn in alone] == [
        (user, "Add.\n\n2 and 3"), (assistant, "Five."),
    ]  # fmt: skip


def test_instructions_load_as_they_always_did(selection: pd.DataFrame, tmp_path: Path) -> None:
    alone = selection.iloc[[1]].drop(columns="turns")
    data = loaded(export(alone, tmp_path, None))
    assert data.column_names[:3] == ["instruction", "input", "output"]
    assert data[0]["input"] == "2 and 3"


def test_conversations_of_another_format_are_messages(
    selection: pd.DataFrame, tmp_path: Path
) -> None:
    data = loaded(export(selection, tmp_path, None))
    assert [len(turns) for turns in data["messages"]] == [5, 2, 3]


def test_every_row_tells_where_it_came_from(selection: pd.DataFrame, tmp_path: Path) -> None:
    selection = selection.assign(
        source="chats", file=["a.json", "a.json", "b.csv"], line=[3, 40, 7],
        own_id=pd.Series(["c-1", None, "99"]), category="",
    )  # fmt: skip
    data = loaded(export(selection, tmp_path, "sharegpt"))
    assert [(row["source"], row["file"], row["line"], row["own_id"]) for row in data] == [
        ("chats", "a.json", 3, "c-1"), ("chats", "a.json", 40, None), ("chats", "b.csv", 7, "99"),
    ]  # fmt: skip


def test_a_column_of_the_shapes_own_keeps_its_value(
    selection: pd.DataFrame, tmp_path: Path
) -> None:
    def write(turns: Any) -> dict[str, Any]:
        return {"source": turns[-1].content}

    path = tmp_path / "own.jsonl"
    export_jsonl(selection.assign(source="chats"), path, write=write)
    assert loaded(path)["source"] == selection["output"].tolist()


def test_what_was_written_is_read_again_as_the_same_examples(
    selection: pd.DataFrame, tmp_path: Path
) -> None:
    from im_assets.candidates.reading import read_source
    from im_resources.study import DataSource

    for shape in SHAPES:
        path = export(selection, tmp_path, shape)
        rows, rejected = read_source("again", DataSource(path=str(path), format=shape))
        assert rejected.empty
        assert rows["turns"].tolist()[::2] == selection["turns"].tolist()[::2]
        assert rows["output"].tolist() == selection["output"].tolist()


def test_the_pages_settings_of_axolotl_and_llama_factory_name_what_the_file_has(
    selection: pd.DataFrame, tmp_path: Path
) -> None:
    [axolotl], [factory] = blocks_of("yaml"), blocks_of("json")
    row = json.loads(export(selection, tmp_path, "messages").read_text("utf-8").splitlines()[0])
    [dataset] = yaml.safe_load(axolotl)["datasets"]
    assert dataset["field_messages"] in row
    described = json.loads(factory)["selection"]
    tags, turns = described["tags"], row[described["columns"]["messages"]]
    assert {tags["role_tag"], tags["content_tag"]} == set(turns[0])
    # LLaMA-Factory's rule (data/README.md): after a system's turn, both sides alternate.
    assert turns[0]["role"] == tags["system_tag"]
    sides = [turn["role"] for turn in turns[1:]]
    assert sides == [tags["user_tag"], tags["assistant_tag"]] * 2
    # The commented lines are for the other shape.
    lines = axolotl.replace("    field_messages: messages\n", "").replace("# ", "")
    other = yaml.safe_load(lines)["datasets"][0]
    row = json.loads(export(selection, tmp_path, "sharegpt").read_text("utf-8").splitlines()[2])
    properties = other["message_property_mappings"]
    said = [turn[properties["role"]] for turn in row[other["field_messages"]]]
    known = {name: role for role, names in other["roles"].items() for name in names}
    assert [known[name] for name in said] == ["user", "tool", "assistant"]


@pytest.mark.parametrize("shape", [*SHAPES, None])
def test_trl_reads_it_and_learns_the_replies(
    selection: pd.DataFrame,
    tmp_path: Path,
    shape: str | None,
    tiny_folder: Path,
) -> None:
    trl: Any = import_module("trl")  # its names are lazy: no type checker sees them
    from transformers import AutoTokenizer

    rows = selection if shape else selection.iloc[[1]].drop(columns="turns")
    data = loaded(export(rows, tmp_path, shape))
    if shape != "messages":
        convert = page_functions()["from_sharegpt" if shape else "from_alpaca"]
        data = data.map(convert, remove_columns=data.column_names)
    assert all(trl.is_conversational(row) for row in data)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = MARKED
    trainer = trl.SFTTrainer(
        str(tiny_folder),
        train_dataset=data,
        processing_class=tokenizer,
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "out"), assistant_only_loss=True, use_cpu=True, bf16=False,
            max_steps=1, per_device_train_batch_size=3, report_to="none", save_strategy="no",
        ),
    )  # fmt: skip
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(data))])
    learned = [tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    replies = ["你好.<|im_end|>So it is.<|im_end|>", "Five.<|im_end|>", "Yes.<|im_end|>"]
    assert [str(text).strip() for text in learned] == (replies if shape else replies[1:2])
    assert trainer.train().training_loss > 0
