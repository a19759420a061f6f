"""A study of conversations, from its files to selections in the shapes that they came in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_assets.candidates.format_registry import NOT_TEXT
from im_resources.turns import read_turns
from tests.language_model.models import write_model
from tests.study import PLACES, Platform, write_profile

PARTS = [{"type": "text", "text": "Look at it. "}, {"type": "image_url", "image_url": "x"}]


def talk(topic: str, number: int) -> list[tuple[str, Any]]:
    """A conversation of two exchanges; every third has one exchange only, and no system."""
    last = [
        ("user", f"What else is there in {topic}, place {number}?"),
        ("assistant", f"Hills, {number} of them, and the sea beside {topic}." * (1 + number % 3)),
    ]
    if not number % 3:
        return last
    first = [("user", f"Where is {topic}?"), ("assistant", f"Far away, {number} days by ship.")]
    return [("system", f"You know {topic} well."), *first, *last]


def messages(turns: list[tuple[str, Any]]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def sharegpt(turns: list[tuple[str, Any]]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    said = [{"from": names.get(role, role), "value": content} for role, content in turns]
    return {"conversations": said}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The home and the profile of a study that was run."""
    home = tmp_path_factory.mktemp("talk")
    profile = write_profile(home, write_model(home / "model"), name="talk")
    files = home / "data"
    chats = [messages(talk(f"old {place}", i)) for i, place in enumerate(PLACES)]
    chats[1]["messages"][1]["content"] = PARTS
    shared = [sharegpt(talk(f"new {place}", i)) for i, place in enumerate(PLACES * 2)]
    asked = [
        {**messages([("user", "Hi"), ("assistant", "Hm."), ("user", f"Thing {i}?")]),
         "outputs": [f"It is {i}.", f"Thing {i}, of course."]}
        for i in range(4)
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        platform = Platform(profile, instance)
        data = {
            "candidates": {
                **{k: s.model_dump(exclude_none=True) for k, s in _sources(platform).items()},
                "chats": {"path": write(files / "chats.jsonl", chats), "format": "messages"},
            },
            "unseen": {
                "dolly": {"path": write(files / "new.jsonl", shared), "format": "sharegpt"},
                "mine": {"path": str(files / "capitals.jsonl")},
            },
            "evaluation": {
                "path": write(files / "asked.jsonl", asked),
                "format": "messages",
                "outputs": "outputs",
            },
        }
        platform.change(data=data, models={"prompt": "chat", "max_length": 96},
                        mixtures={"seeds": 8, "size": 12})  # fmt: skip
        assert platform.run_study().success
    return home, profile


def _sources(platform: Platform) -> dict[str, Any]:
    return {name: source for name, source in platform.study.data.candidates.items()
            if name != "food"}  # fmt: skip


@pytest.fixture
def platform(finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    monkeypatch.setenv("IM_HOME", str(finished[0]))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(finished[1], instance)


def exported(platform: Platform, name: str) -> list[dict[str, Any]]:
    lines = (platform.study.folder / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_conversations_stand_beside_instructions_in_one_pool(platform: Platform) -> None:
    pool = platform.table("candidate_datasets")
    turns = [read_turns(value) for value in pool["turns"]]
    sizes = pd.Series([len(t or ()) for t in turns]).groupby(pool["source"]).value_counts()
    assert sizes.to_dict() == {
        ("capitals", 0): 10, ("weather", 0): 10, ("chats", 0): 4, ("chats", 4): 6,
    }  # fmt: skip
    assert NOT_TEXT not in pool
    drawn = set(platform.table("mixed_samples")["example_id"])
    assert drawn & set(pool.loc[pool["turns"].notna(), "example_id"])


def test_the_catalog_counts_conversations_and_what_is_no_text(platform: Platform) -> None:
    result = platform.materialize("candidate_datasets")
    [event] = result.get_asset_materialization_events()
    found = event.materialization.metadata
    assert found["conversations_by_source"].value == {"chats": 6}
    assert found["not_text_by_source"].value == {"chats": {"image_url": 1}}


def test_the_evaluation_loss_is_over_the_reference_outputs(platform: Platform) -> None:
    losses = platform.table("base_losses")
    assert losses.groupby("eval_id")["output_index"].nunique().tolist() == [2] * 4
    assert (losses["tokens"] < 16).all()


def test_a_selection_has_the_shape_that_its_pool_came_in(platform: Platform) -> None:
    rows = exported(platform, "dolly_selection.jsonl")
    assert len(rows) == 6
    given = {
        json.dumps(json.loads(line)["conversations"])
        for line in (platform.study.folder.parent / "data" / "new.jsonl").read_text().splitlines()
    }
    assert {json.dumps(row["conversations"]) for row in rows} <= given
    assert {"example_id", "rank", "predicted_log_loss"} <= set(rows[0])
    plain = exported(platform, "mine_selection.jsonl")
    assert list(plain[0])[:3] == ["instruction", "input", "output"]


def test_only_what_is_learned_is_trained_again_when_the_last_reply_is(platform: Platform) -> None:
    before = platform.table("finetuned_adapters").set_index("seed")["trial_id"]
    losses = platform.table("base_losses")["fingerprint"]
    platform.change(models={"loss_turns": "last"})
    try:
        key = str(before.index[0])
        assert platform.materialize("finetuned_adapters", keys=[key]).success
        after = platform.table("finetuned_adapters").set_index("seed")["trial_id"]
        assert after[key] != before[key]
        assert platform.materialize("base_losses").success
        assert platform.table("base_losses")["fingerprint"].tolist() == losses.tolist()
    finally:
        platform.change(models={"loss_turns": "all"})
