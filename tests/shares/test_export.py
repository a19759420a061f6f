"""The proposed mixture as files that a trainer reads."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from im_assets.rule.target import Target
from im_assets.shares.export import main
from im_assets.shares.telling import shares_table
from im_resources.study import ProposalSettings, Study, load_study
from im_resources.turns import Turn, write_turns
from im_resources.warehouse import Warehouse

HELD = {"plain": 40, "chats": 20, "mixture": 12}
FIXED = ["README.md", "axolotl.yaml", "dataset_info.json", "llama_factory.yaml", "mixture.jsonl"]


def candidates(turns: bool) -> pd.DataFrame:
    rows = []
    for source, count in HELD.items():
        for i in range(count):
            before = [Turn("system", "Be kind."), Turn("user", "Hi."), Turn("assistant", "Yes?")]
            asked = f"What is {source} {i}?"
            row: dict[str, Any] = {
                "example_id": f"{source}-{i}",
                "source": source,
                "instruction": asked,
                "input": "in short" if i % 2 and source == "plain" else "",
                "output": f"It is {i}.",
                "file": f"{source}.jsonl",
                "line": i + 1,
            }
            conversation = turns and source != "plain"
            row["turns"] = write_turns([*before, Turn("user", asked)]) if conversation else None
            rows.append(row)
    found = pd.DataFrame(rows)
    return found if turns else found.drop(columns="turns")


def proposed(noise: float, rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    r = rng.uniform(size=(rows, len(HELD)))
    shares = pd.DataFrame(r / r.sum(axis=1, keepdims=True), columns=list(HELD))
    values = pd.Series(shares.to_numpy() @ [0.7, 0.66, 0.64] + noise * rng.normal(size=rows))
    return shares_table(shares, values, HELD, ProposalSettings(nearness=0.05), 0.95, Target())


class Made:
    """A study whose tables are there."""

    def __init__(self, folder: Path, formats: dict[str, str]) -> None:
        self.profile = folder / "shares.yaml"
        self.out = folder / "out"
        source = {"path": "none.jsonl"}
        sources = {name: {**source, "format": formats.get(name, "alpaca")} for name in HELD}
        settings: dict[str, Any] = {
            "name": "shares",
            "data": {"candidates": sources, "unseen": source, "evaluation": source},
            "models": {"base": {"path": "none"}, "embedding": {"path": "none"}},
            "scoring": {"indicators": {"mtld": "mtld"}},
        }
        self.profile.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.study: Study = load_study(str(self.profile))
        self.study.folder.mkdir(parents=True)
        self.warehouse = Warehouse(self.study.warehouse)
        self.warehouse.replace_table("candidate_datasets", candidates(bool(formats)))
        self.warehouse.replace_table("source_shares", proposed(0.0005))

    def export(self, *more: str) -> int:
        return main([str(self.profile), str(self.out), *more])

    def rows(self, name: str) -> list[dict[str, Any]]:
        text = (self.out / name).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def yaml(self, name: str) -> Any:
        return yaml.safe_load((self.out / name).read_text(encoding="utf-8"))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    return Made(tmp_path, {"chats": "messages", "mixture": "sharegpt"})


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    return Made(tmp_path, {})


@pytest.mark.parametrize("size", [None, 10, 500])
def test_the_file_has_the_proposed_shares(made: Made, size: int | None) -> None:
    assert made.export(*([] if size is None else ["--examples", str(size)])) == 0
    found = made.warehouse.read_table("source_shares").set_index("source")["proposed_share"]
    rows = made.rows("mixture.jsonl")
    assert len(rows) == (size or sum(HELD.values()))
    counts = Counter(row["source"] for row in rows)
    for source, share in found.items():
        assert abs(counts[str(source)] - share * len(rows)) < 1
    for source, held in HELD.items():
        often = Counter(row["example_id"] for row in rows if row["source"] == source)
        if counts[source] >= held:
            assert len(often) == held
        assert max(often.values(), default=0) == -(-counts[source] // held)


def test_a_file_a_source_holds_the_same_rows_in_its_own_shape(made: Made) -> None:
    assert made.export() == 0
    every = made.rows("mixture.jsonl")
    files = {"plain": "plain.jsonl", "chats": "chats.jsonl", "mixture": "mixture.source.jsonl"}
    assert sorted(path.name for path in made.out.iterdir()) == sorted([*FIXED, *files.values()])
    for source, file in files.items():
        mine = [row["example_id"] for row in every if row["source"] == source]
        assert [row["example_id"] for row in made.rows(file)] == mine
    one = made.rows("plain.jsonl")[0]
    number = one["example_id"].split("-")[1]
    assert one["instruction"] == f"What is plain {number}?"
    assert one["output"] == f"It is {number}."
    assert (one["source"], one["line"]) == ("plain", int(number) + 1)
    roles = [turn["role"] for turn in made.rows("chats.jsonl")[0]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    speakers = [turn["from"] for turn in made.rows("mixture.source.jsonl")[0]["conversations"]]
    assert speakers == ["system", "human", "gpt", "human", "gpt"]
    # Several shapes: the whole mixture is in the one that every example can be in.
    assert all(row["messages"][-1]["role"] == "assistant" for row in every)
    of_plain = next(row for row in every if row["example_id"] == one["example_id"])
    asked = "\n\n".join(filter(None, (one["instruction"], one["input"])))
    assert of_plain["messages"][0] == {"role": "user", "content": asked}


def test_sources_of_one_shape_keep_it(plain: Made) -> None:
    assert plain.export() == 0
    assert all({"instruction", "input", "output"} <= set(r) for r in plain.rows("mixture.jsonl"))
    assert {one["type"] for one in plain.yaml("axolotl.yaml")["datasets"]} == {"alpaca"}


def test_trainers_settings_name_files_that_are_there_in_their_shape(made: Made) -> None:
    assert made.export() == 0
    axolotl = made.yaml("axolotl.yaml")
    assert axolotl["dataset_exact_deduplication"] is False
    kinds = {one["path"]: one for one in axolotl["datasets"]}
    assert kinds["plain.jsonl"]["type"] == "alpaca"
    for file in ("chats.jsonl", "mixture.source.jsonl"):
        told = kinds[file]
        assert told["type"] == "chat_template"
        turns = made.rows(file)[0][told["field_messages"]]
        names = told["message_property_mappings"]
        known = {"system", "user", "assistant"} if "roles" not in told else {
            speaker for speakers in told["roles"].values() for speaker in speakers
        }  # fmt: skip
        assert {turn[names["role"]] for turn in turns} <= known
        assert all(isinstance(turn[names["content"]], str) for turn in turns)
    factory = made.yaml("llama_factory.yaml")
    assert (factory["dataset_dir"], factory["mix_strategy"]) == (".", "concat")
    names = factory["dataset"].split(",")
    assert names == sorted(HELD)
    described = json.loads((made.out / "dataset_info.json").read_text(encoding="utf-8"))
    total = 0
    for name in names:
        told = described[name]
        rows = made.rows(told["file_name"])
        total += len(rows)
        for field, column in told["columns"].items():
            assert column in rows[0], field
        if told["formatting"] == "sharegpt":
            tags = told["tags"]
            speakers = {turn[tags["role_tag"]] for turn in rows[0][told["columns"]["messages"]]}
            assert speakers == {tags["system_tag"], tags["user_tag"], tags["assistant_tag"]}
    assert total == len(made.rows("mixture.jsonl"))


def test_datasets_reads_every_file(made: Made, tmp_path: Path) -> None:
    from datasets import load_dataset

    assert made.export() == 0
    for file in made.out.glob("*.jsonl"):
        found = load_dataset("json", data_files=str(file), cache_dir=str(tmp_path / "cache"))
        assert len(found["train"]) == len(made.rows(file.name))


def test_the_same_data_give_the_same_files(made: Made) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(made.out.iterdir())}

    assert made.export("--examples", "90") == 0
    first = contents()
    shuffled = candidates(True).sample(frac=1, random_state=1)
    made.warehouse.replace_table("candidate_datasets", shuffled)
    assert made.export("--examples", "90") == 0
    assert contents() == first


def test_the_card_says_first_whether_the_proposal_can_be_told(made: Made) -> None:
    assert made.export() == 0
    card = (made.out / "README.md").read_text(encoding="utf-8")
    assert card.splitlines()[0].startswith(
        "# The proposed shares are a step that can be told from none: −0."
    )
    assert "| mixture (`mixture.source.jsonl`) | 12 | 16.7" in card
    assert "interleave_probs: " in card
    made.warehouse.replace_table("source_shares", proposed(1.0))
    assert made.export() == 0
    card = (made.out / "README.md").read_text(encoding="utf-8")
    assert card.splitlines()[0].startswith(
        "# The proposed shares cannot be told from the data as it is: "
    )


def test_a_source_without_a_row_has_no_file(made: Made) -> None:
    found = made.warehouse.read_table("source_shares")
    shares = {"plain": 0.001, "chats": 0.799, "mixture": 0.2}
    found["proposed_share"] = found["source"].map(shares)
    made.warehouse.replace_table("source_shares", found)
    assert made.export("--examples", "10") == 0
    assert not (made.out / "plain.jsonl").exists()
    assert {one["path"] for one in made.yaml("axolotl.yaml")["datasets"]} == {
        "chats.jsonl", "mixture.source.jsonl"
    }  # fmt: skip
    assert "| plain | 40 |" in (made.out / "README.md").read_text(encoding="utf-8")


def test_what_is_not_proposed_is_not_written(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    made.warehouse.replace_table("source_shares", proposed(0.001, rows=5))
    assert made.export() == 1
    assert "5 mixtures cannot tell the shares of 3 sources" in capsys.readouterr().err
    made.warehouse.replace_table("source_shares", proposed(0.001))
    fewer = candidates(True).iloc[1:]
    made.warehouse.replace_table("candidate_datasets", fewer)
    assert made.export() == 1
    assert "for other candidates than there are now" in capsys.readouterr().err
    renamed = proposed(0.001).assign(source=["a", "b", "c"])
    made.warehouse.replace_table("source_shares", renamed)
    assert made.export() == 1
    assert "a, b, c is no source of the profile any more" in capsys.readouterr().err
    made.study.warehouse.unlink()
    assert made.export() == 1
    assert "has no source_shares yet" in capsys.readouterr().err
    assert not made.out.exists()
    assert main(["no-such-profile", str(made.out)]) == 1


def test_a_folder_of_somebody_else_stays(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.out.mkdir()
    (made.out / "thesis.txt").write_text("mine")
    assert made.export() == 1
    assert "thesis.txt, which is not of a mixture" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        made.export("--examples", "0")


def test_the_sources_themselves_are_no_earlier_mixture(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    made.out.mkdir()
    for name in ("plain.jsonl", "chats.jsonl"):
        (made.out / name).write_text("mine")
    assert made.export() == 1
    assert "holds chats.jsonl, plain.jsonl, but no README.md" in capsys.readouterr().err
    assert [path.read_text("utf-8") for path in made.out.iterdir()] == ["mine", "mine"]
    for path in made.out.iterdir():
        path.unlink()
    assert made.export() == made.export() == 0  # empty, and then its own


def test_a_path_that_can_be_no_folder_is_told(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    made.out.write_text("mine")
    assert made.export() == 1
    assert "out is a file; choose a folder" in capsys.readouterr().err
    below = made.out / "below"
    assert main([str(made.profile), str(below)]) == 1
    assert str(made.out) in capsys.readouterr().err
    assert made.out.read_text("utf-8") == "mine"
    loop = made.out.parent / "loop"
    loop.symlink_to("loop")
    assert main([str(made.profile), str(loop)]) == 1
    assert "loop" in capsys.readouterr().err


def test_damaged_tables_are_told(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.study.warehouse.write_bytes(b"no database" * 999)
    assert made.export() == 1
    assert "is damaged" in capsys.readouterr().err


def test_of_own_runs_the_card_tells_no_size_of_mixtures(made: Made) -> None:
    assert made.export() == 0
    assert "finetunes of 2,000 examples over" in (made.out / "README.md").read_text("utf-8")
    settings = yaml.safe_load(made.profile.read_text("utf-8")) | {"runs": {"path": "runs.csv"}}
    made.profile.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert made.export() == 0
    card = (made.out / "README.md").read_text("utf-8")
    assert "2,000" not in card
    assert "It is about finetunes such as the runs that were measured." in card
