"""Stale is stale in the catalog: what a changed setting marks, and what it does not."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_assets.common.versions import READS, content_version, settings_read
from im_resources.warehouse import SQL, Warehouse
from tests.study import Platform, write_profile

UPSTREAM = {"eval_set", "candidate_datasets", "dolly_dataset", "mixed_samples", "base_losses",
            "example_scores", "dolly_scores", "seed_design"}  # fmt: skip
TRAINED = {"finetuned_adapters", "univariate_adapters"}
FITTED = {
    "quality_rule", "rule_evidence", "source_shares", "dolly_indicators", "dolly_selection",
    "study_report",
}  # fmt: skip


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("stale")
    bins = {"indicators": ["len_out"], "bins": 4, "size": 4}
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        profile = write_profile(home, tiny_folder, mixtures={"seeds": 6}, univariate=bins)
        found = Platform(profile, instance)
        found.run_all()
        yield found


@pytest.fixture(autouse=True)
def restored(platform: Platform) -> Iterator[None]:
    before = platform.profile.read_text(encoding="utf-8")
    yield
    platform.profile.write_text(before, encoding="utf-8")


def test_a_finished_study_is_fresh(platform: Platform) -> None:
    assert platform.stale() == set()


def test_a_training_setting_marks_the_adapters_and_what_follows(platform: Platform) -> None:
    platform.change(finetuning={"learning_rate": 1e-3})
    stale = platform.stale()
    assert stale >= TRAINED | FITTED | {"eval_losses", "univariate_losses", "indicator_table"}
    assert not stale & UPSTREAM


def test_a_setting_of_the_rule_marks_the_rule_and_no_adapter(platform: Platform) -> None:
    platform.change(rule={"confidence": 0.9})
    assert platform.stale() == FITTED


def test_resamples_mark_the_evidence_and_neither_rule_nor_finetune(platform: Platform) -> None:
    platform.change(rule={"bootstrap": 11}, univariate={"bootstrap": 50})
    assert platform.stale() == {"rule_evidence", "univariate_study", "study_report"}


def test_a_setting_of_the_selection_marks_the_selection(platform: Platform) -> None:
    platform.change(selection={"size": 5})
    assert platform.stale() == {"dolly_selection", "study_report"}


def test_settings_of_speed_mark_nothing(platform: Platform) -> None:
    platform.change(evaluation={"tokens_per_batch": 512})
    assert platform.stale() == set()


def test_a_change_and_back_marks_nothing(platform: Platform) -> None:
    platform.change(finetuning={"learning_rate": 1e-3})
    platform.change(finetuning={"learning_rate": 2e-3})
    assert platform.stale() == set()


def test_a_file_written_again_with_the_same_rows_marks_nothing(platform: Platform) -> None:
    source = Path(str(platform.study.data.candidates["weather"].path))
    source.write_text(source.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert platform.materialize("candidate_datasets").success
    assert platform.stale() == set()


def test_rows_that_move_mark_nothing_and_tell_their_new_place(platform: Platform) -> None:
    pools = platform.study.data.candidates["weather"], platform.study.data.unseen["dolly"]
    files = {path: path.read_text("utf-8") for path in (Path(str(pool.path)) for pool in pools)}
    for path, text in files.items():
        rows = [json.loads(line) for line in text.split("\n") if line][::-1]
        told = [{"id": f"{path.stem}-{i}", **row} for i, row in enumerate(rows)]
        path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    before = platform.table("mixed_samples")
    assert platform.materialize("candidate_datasets", "dolly_dataset").success
    assert platform.stale() == set()
    assert platform.materialize("mixed_samples", "dolly_selection").success
    assert platform.stale() == {"study_report"}  # which shows where they are
    pd.testing.assert_frame_equal(platform.table("mixed_samples"), before)
    written = (platform.study.folder / "selection.jsonl").read_text("utf-8")
    exported = [json.loads(line) for line in written.splitlines()]
    selection = platform.table("dolly_selection")
    place = ["source", "file", "line", "own_id"]
    assert [[row[c] for c in place] for row in exported] == selection[place].to_numpy().tolist()
    lines = list(files)[1].read_text("utf-8").splitlines()
    for row in exported:
        there = json.loads(lines[row["line"] - 1])
        assert row["source"] == "unseen"
        assert row["file"] == "unseen.jsonl"
        assert (there["id"], there["response"]) == (row["own_id"], row["output"] + " ")
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    assert platform.materialize("candidate_datasets", "dolly_dataset", "dolly_selection").success
    assert platform.stale() == set()


def test_seeds_made_again_mark_nothing(platform: Platform) -> None:
    names = ("mixed_samples", "finetuned_adapters", "eval_losses")
    assert platform.materialize(*names, keys=["seed-002", "seed-003"]).success
    assert platform.materialize(*names, keys=["seed-004"]).success
    assert platform.stale() == set()


def test_a_row_more_marks_what_is_made_from_it(platform: Platform) -> None:
    source = Path(str(platform.study.data.unseen["dolly"].path))
    text = source.read_text(encoding="utf-8")
    row = '{"instruction": "Why not?", "context": "", "response": "For no reason at all."}\n'
    source.write_text(text + row, encoding="utf-8")
    assert platform.materialize("dolly_dataset").success
    assert platform.stale() == {
        "dolly_scores", "dolly_indicators", "dolly_selection", "study_plan", "study_report",
    }  # fmt: skip
    source.write_text(text, encoding="utf-8")
    assert platform.materialize("dolly_dataset").success
    assert platform.stale() == set()


def test_every_setting_that_an_asset_reads_is_there(platform: Platform) -> None:
    study = platform.study
    graph = platform.definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        settings_read(study, graph.get(key).metadata.get(READS, ()))


def test_tables_carry_the_version_of_their_content(platform: Platform) -> None:
    for name in ("candidate_datasets", "example_scores", "indicator_table", "quality_rule"):
        event = platform.instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        tags = event.asset_materialization.tags or {}
        assert len(tags["dagster/data_version"]) == 16
        before = tags["dagster/data_version"]
        assert platform.materialize(name).success
        again = platform.instance.get_latest_materialization_event(dg.AssetKey(name))
        assert again is not None
        assert again.asset_materialization is not None
        assert (again.asset_materialization.tags or {})["dagster/data_version"] == before


def test_a_content_version_covers_columns_rows_and_their_order(platform: Platform) -> None:
    frame = platform.table("candidate_datasets")
    same = content_version(frame)
    assert content_version(frame.copy()) == same
    others = [
        frame.iloc[::-1],
        frame.iloc[1:],
        frame.rename(columns={"output": "response"}),
        frame.assign(output=frame["output"].where(frame.index != 3, "x")),
    ]
    assert len({same, *map(content_version, others)}) == 5


# Tables that are no assets: who writes them, so that a reader depends on one of these.
CACHES = {
    "score_cache": {"example_scores", "dolly_scores"},
    "embedding_cache": {"example_scores", "dolly_scores"},
    "quarantined_examples": {"eval_set", "candidate_datasets", "dolly_dataset"},
    "cut_cache": {
        "example_scores", "dolly_scores", "finetuned_adapters", "univariate_adapters",
        "base_losses",
    },
    "token_cuts": {
        "example_scores", "dolly_scores", "finetuned_adapters", "univariate_adapters",
        "base_losses",
    },
    "eval_loss_cache": {"base_losses", "eval_losses", "univariate_losses"},
    "candidate_history": {"candidate_datasets"},
}  # fmt: skip
# A message before the training says what a run leaves out; no result is made from what it reads.
# And seeds are new, or stay, by what was paid for already: a dependency on it would be a circle.
TOLD = {
    "mixed_samples": {"finetuned_adapters", "eval_losses", "eval_set"},
    "mixture_seeds": {"mixed_samples", "finetuned_adapters", "example_scores"},
    "indicator_table": {"quality_rule"},  # the rule of before, put to the test on new points
    "univariate_samples": {
        "univariate_adapters", "univariate_losses", "candidate_datasets", "eval_set",
    },
}  # fmt: skip


def test_every_table_that_an_asset_reads_is_a_dependency(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    query, arrow, read_table = Warehouse.query, Warehouse.arrow, Warehouse.read_table

    def note(statement: str, parameters: Any = ()) -> None:
        text = (SQL / statement).read_text("utf-8") if statement.endswith(".sql") else statement
        values = parameters.values() if isinstance(parameters, dict) else parameters
        words = set(re.findall(r"\w+", re.sub(r"--.*", "", text))) | set(map(str, values))
        read.update(words & tables)

    def queried(self: Warehouse, *rest: Any, **more: Any) -> pd.DataFrame:
        note(*rest[:2])
        return query(self, *rest, **more)

    def streamed(self: Warehouse, *rest: Any, **more: Any) -> Any:
        note(*rest[:2])
        return arrow(self, *rest, **more)

    def read_whole(self: Warehouse, table: str, *rest: Any, **more: Any) -> pd.DataFrame:
        read.add(table)
        return read_table(self, table, *rest, **more)

    names = platform.warehouse.query("SELECT table_name FROM duckdb_tables()")["table_name"]
    tables = set(names)
    monkeypatch.setattr("tests.study.sync_study", lambda *_: None)  # reads too, and is no asset
    monkeypatch.setattr(Warehouse, "query", queried)
    monkeypatch.setattr(Warehouse, "arrow", streamed)
    monkeypatch.setattr(Warehouse, "read_table", read_whole)
    graph = platform.definitions.resolve_asset_graph()
    # A plan looks up what is there, in whatever table; no result is made from it.
    for key in sorted(graph.get_all_asset_keys() - {dg.AssetKey("study_plan")}):
        name = key.to_user_string()
        read.clear()
        assert platform.materialize(name, checks=False).success
        parents = {parent.to_user_string() for parent in graph.get(key).parent_keys} | {name}
        told = TOLD.get(name, set())
        undeclared = {t for t in read - told if not CACHES.get(t, {t}) & parents}
        assert not undeclared, f"{name} reads {undeclared} without depending on them"
