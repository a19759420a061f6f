"""A study whose texts do not fit: what is cut, and of how many rows, is said everywhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from transformers import AutoTokenizer

from im_assets.common.cuts import CHECK, TABLE
from im_assets.scoring.cuts import CACHE
from im_resources.language_model import prompts
from im_resources.turns import turns_columns
from tests.language_model.models import write_model
from tests.study import PLACES, Platform, copied, write_profile

LENGTH = 64
RAMBLE = "and then we went on to the next house, which was as old as the one before it, "
HOUSES = "an old house of {}, with a door, a roof and some windows towards the sea of {}; "


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def talk(place: str) -> dict[str, Any]:
    said = [f"Where is {place}? " * 14, f"{place} is far away.", "And what is there?", "Hills."]
    roles = ["user", "assistant"] * 2
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The home and the profile of a study of short rows, long ones, and long conversations."""
    home = tmp_path_factory.mktemp("cut")
    profile = write_profile(home, write_model(home / "model"), name="cut")
    files = home / "data"
    long = [
        {
            "instruction": f"Tell me of the houses of {place}.",
            "output": HOUSES.format(place, other) * 5,
        }
        for place, other in zip(PLACES, reversed(PLACES), strict=True)
    ]
    unseen = [
        {
            "instruction": f"Why {n}?",
            "output": f"Because of {n}. " + f"It is {n}, as all know. " * 9 * (n % 2),
        }
        for n in range(40)
    ]
    asked = [
        {"instruction": f"What is thing {i}?", "outputs": [f"It is {i}.", f"Thing {i}. " + RAMBLE]}
        for i in range(12)
    ]
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        platform = Platform(profile, instance)
        platform.change(
            data={
                "candidates": {
                    "short": {"path": str(files / "capitals.jsonl")},
                    "long": {"path": write(files / "long.jsonl", long)},
                    "talks": {
                        "path": write(files / "talks.jsonl", list(map(talk, PLACES))),
                        "format": "messages",
                    },
                },
                "unseen": {"path": write(files / "mine.jsonl", unseen), "limit": 20},
                "evaluation": {
                    "path": write(files / "asked.jsonl", asked), "outputs": "outputs",
                },
            },
            models={"max_length": LENGTH},
            mixtures={"size": 9},
            evaluation={"max_instructions": 6, "max_output_tokens": 12},
        )  # fmt: skip
        platform.run_all()
    return home, profile


@pytest.fixture
def own(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """A copy of it, to do something to."""
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(copied(finished, tmp_path / "home"), instance)


def counts(platform: Platform, asset: str) -> pd.DataFrame:
    table = platform.table(TABLE)
    return table[table["asset"] == asset].groupby("source").sum(numeric_only=True)


def by_hand(platform: Platform, examples: pd.DataFrame) -> pd.DataFrame:
    """Tokens of the responses, whole and kept, from the tokenizer itself."""
    tokenizer = AutoTokenizer.from_pretrained(str(platform.profile.parent / "model"))
    rows = []
    for example in examples.itertuples():
        prompt = tokenizer(f"Question: {example.instruction}\nAnswer:")["input_ids"]
        response = len(tokenizer(f" {example.output}")["input_ids"]) + 1
        rows.append((example.source, response, min(response, LENGTH - len(prompt))))
    return pd.DataFrame(rows, columns=["source", "whole", "kept"])


def test_what_was_trained_on_is_counted_by_source(own: Platform) -> None:
    found = counts(own, "finetuned_adapters")
    drawn = own.table("mixed_samples")[["example_id", "source"]]
    assert found["instructions"].to_dict() == drawn["source"].value_counts().to_dict()
    texts = own.table("candidate_datasets")
    members = drawn.merge(texts.drop(columns="source"), on="example_id")
    for source in ("short", "long"):
        hand = by_hand(own, members[members["source"] == source])
        assert found.loc[source, "response_tokens"] == hand["whole"].sum()
        assert found.loc[source, "response_tokens_cut"] == (hand["whole"] - hand["kept"]).sum()
        assert found.loc[source, "responses_cut"] == (hand["kept"] < hand["whole"]).sum()
    assert found.loc["short", "responses_cut"] == 0
    assert found.loc["long", "responses"] == (members["source"] == "long").sum()
    assert found.loc["long", "responses_cut"] == found.loc["long", "responses"]
    # Every conversation lost its first exchange, whose reply is learned too where it fits.
    assert turns_columns(texts)
    talks = found.loc["talks"]
    assert talks["turns_left_out"] == 2 * talks["instructions"]
    assert talks["responses_left_out"] == talks["instructions"] == talks["responses"] / 2


def test_the_evaluation_set_and_the_pool_are_counted_too(own: Platform) -> None:
    found = counts(own, "base_losses").loc["evaluation"]
    assert (found["instructions"], found["responses"], found["responses_cut"]) == (6, 12, 6)
    losses = own.table("base_losses")
    assert found["response_tokens"] - found["response_tokens_cut"] == losses["tokens"].sum()
    assert losses["tokens"].max() == 12
    pool = own.table("dolly_dataset")
    hand = by_hand(own, pool)
    scored = counts(own, "dolly_scores").loc["unseen"]
    assert (scored["instructions"], scored["responses_cut"]) == (
        len(pool), (hand["kept"] < hand["whole"]).sum(),
    )  # fmt: skip


def test_metadata_log_check_and_report_say_it(
    own: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    result = own.materialize("finetuned_adapters", "base_losses", "dolly_scores", "study_report")
    assert result.success
    metadata = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    assert metadata["base_losses"]["responses cut"].value == 0.5
    said = str(metadata["base_losses"]["taken"].value)
    assert said == "6 of 12 instructions, 12 of 24 outputs: a sample (seed 0)"
    assert "responses cut" in metadata["finetuned_adapters"]  # of a partition
    checks = {
        check.asset_key.to_user_string(): check
        for check in result.get_asset_check_evaluations()
        if check.check_name == CHECK
    }
    assert checks.keys() == {"finetuned_adapters", "base_losses", "dolly_scores"}
    for check in checks.values():
        assert not check.passed
        assert check.severity == dg.AssetCheckSeverity.WARN
        assert not check.blocking
    assert "by source: long 100%" in str(checks["finetuned_adapters"].description)
    assert checks["finetuned_adapters"].metadata["sources above"].value == ["long", "talks"]
    assert "| talks |" in str(checks["finetuned_adapters"].metadata["cut by source"].value)
    warnings = [
        record.user_message
        for record in own.instance.all_logs(result.run_id)
        if record.level == 30 and "responses cut" in record.user_message
    ]
    assert len(warnings) == 3
    assert any("evaluation.max_output_tokens (12)" in text for text in warnings)

    document = json.loads((own.study.folder / "report/report.json").read_text(encoding="utf-8"))
    first = json.dumps(document["sections"]["answer"])
    assert "Mind what was cut to fit into models.max_length" in first
    assert "50% of the responses of the evaluation set" in first
    data = json.dumps(document["sections"]["data"])
    assert "6 instructions, a sample (seed 0)" in data
    assert "a sample of 20 rows of dolly (seed 0)" in data


def test_the_bound_is_a_setting_that_makes_nothing_stale(own: Platform) -> None:
    assert own.materialize("base_losses").success
    assert "base_losses" not in own.stale()
    own.change(models={"cut_warning": 0.5})
    assert "base_losses" not in own.stale()
    result = own.materialize("base_losses")
    [check] = [c for c in result.get_asset_check_evaluations() if c.check_name == CHECK]
    assert check.passed
    assert "responses cut: 6 of 12 (50%)" in str(check.description)


def test_an_example_is_tokenized_for_the_count_once(
    own: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = own.table(CACHE)
    assert not known.duplicated(["example_id", "fingerprint"]).any()
    ids = {
        *own.table("candidate_datasets")["example_id"],
        *own.table("dolly_dataset")["example_id"],
        *own.table("base_losses")["eval_id"],
    }
    assert set(known["example_id"]) == ids

    def none(*_: Any) -> Any:
        raise AssertionError("tokenized again")

    for name in ("encode_examples", "encode"):
        monkeypatch.setattr(prompts, name, none)
    monkeypatch.setattr("im_resources.gpu.GpuResource.tokenizer", None)
    names = ("finetuned_adapters", "example_scores", "dolly_scores", "base_losses")
    assert own.materialize(*names).success


def test_scores_of_before_are_counted_without_the_model(
    own: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = own.table(CACHE).sort_values("example_id", ignore_index=True)
    for table in (CACHE, TABLE):
        own.warehouse.execute(f"DROP TABLE {table}")
    monkeypatch.setattr("im_resources.gpu.GpuResource.base_model", None)
    names = ("dolly_scores", "finetuned_adapters", "example_scores", "base_losses")
    assert own.materialize(*names).success
    after = own.table(CACHE).sort_values("example_id", ignore_index=True)
    pd.testing.assert_frame_equal(after, before)


def test_how_a_limit_takes_rows_is_told_and_counts_only_where_there_is_one(own: Platform) -> None:
    def code_versions() -> dict[str, str]:
        graph = own.definitions.resolve_asset_graph()
        return {
            key.to_user_string(): str(graph.get(key).code_version)
            for key in graph.get_all_asset_keys()
        }

    result = own.materialize("dolly_dataset")
    [event] = result.get_asset_materialization_events()
    told = event.materialization.metadata["taken_of_sources"].value
    assert told == {"unseen": {"rows": 20, "of": 40, "limit": 20, "take": "sample", "seed": 0}}
    before, sampled = code_versions(), set(own.table("dolly_dataset")["line"])
    assert sampled != set(range(1, 21))
    own.change(data={"unseen": own.study.data.unseen["dolly"].model_dump(exclude_none=True)
                     | {"take": "first"}})  # fmt: skip
    after = code_versions()
    assert {name for name in before if before[name] != after[name]} >= {"dolly_dataset"}
    assert before["candidate_datasets"] == after["candidate_datasets"]
    assert own.materialize("dolly_dataset").success
    assert set(own.table("dolly_dataset")["line"]) == set(range(1, 21))

    own.change(evaluation={"max_instructions": None, "take": "sample"})
    whole = code_versions()
    own.change(evaluation={"take": "first", "sample_seed": 7})
    assert code_versions() == whole  # nothing is limited: nothing is taken
