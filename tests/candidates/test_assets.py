"""The assets end to end on small files: what is stored, shown and refused."""

import json
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from im_assets.candidates.assets import candidates_asset, eval_set, pool_asset
from im_assets.candidates.checks import (
    candidates_do_not_leak,
    eval_set_usable,
    leaking_examples,
    no_empty_source,
    pool_does_not_leak,
)
from im_assets.candidates.reading import SourceError
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse
from im_resources.warehouse_io_manager import WarehouseIOManager

dolly_dataset, unseen_does_not_leak = pool_asset("dolly"), pool_does_not_leak("dolly")
ASSETS = [eval_set, candidates_asset(), dolly_dataset]
CHECKS = [no_empty_source, eval_set_usable, candidates_do_not_leak, unseen_does_not_leak]
LEAK = "the quick brown fox jumps over the lazy dog"


class Tables(Warehouse):
    """The warehouse of one test."""

    def __init__(self) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="tables-")) / "warehouse.duckdb")

    def quarantine(self, dataset: str) -> pd.DataFrame:
        return self.read_table("quarantined_examples", where={"dataset": dataset})


def _write(path: Path, *rows: dict[str, Any]) -> dict[str, str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path)}


def _study(folder: Path, **candidates: list[dict[str, Any]]) -> Study:
    candidates = candidates or {"s": [{"instruction": "Add 1 and 2", "output": "3"}]}
    sources = {k: _write(folder / f"{k}.jsonl", *rows) for k, rows in candidates.items()}
    evaluation = _write(
        folder / "e.jsonl",
        {"instruction": "Tell a tale", "outputs": [LEAK, "Once", "Once "]},
        {"instruction": "Sing", "outputs": []},
        {"instruction": "Hum", "outputs": ["Mm", ""]},
    )
    unseen = _write(
        folder / "u.jsonl",
        {"instruction": "Name a fruit", "context": "", "response": "Fig", "category": "qa"},
        {"instruction": "Type", "context": "", "response": LEAK, "category": "qa"},
    )
    return Study.model_validate(
        {
            "name": "tiny",
            "data": {
                "candidates": sources,
                "unseen": unseen | {"format": "dolly"},
                "evaluation": evaluation | {"outputs": "outputs"},
            },
            "models": {"base": {"path": "x"}, "embedding": {"path": "x"}},
            "scoring": {"indicators": {"len_in": "instruction_length"}},
        }
    )


def _checked(result: object) -> dg.AssetCheckResult:
    assert isinstance(result, dg.AssetCheckResult)
    return result


def _run(study: Study) -> tuple[dg.ExecuteInProcessResult, Tables]:
    tables = Tables()
    result = dg.materialize(
        [*ASSETS, *CHECKS],
        resources={
            "study": study,
            "warehouse": tables,
            "gpu": GpuResource(device="cpu"),
            "io_manager": WarehouseIOManager(database=str(tables.path)),
        },
    )
    return result, tables


def test_a_clean_study_materializes_and_passes_its_checks(tmp_path: Path) -> None:
    result, tables = _run(_study(tmp_path))
    checks = result.get_asset_check_evaluations()
    assert len(checks) == len(CHECKS)
    assert all(check.passed for check in checks)
    frame = tables.read_table("eval_set")
    assert frame["output"].tolist() == [LEAK, "Once", "Mm"]
    assert frame["output_index"].tolist() == [0, 1, 0]
    assert tables.quarantine("eval_set")["reason"].tolist() == [
        "exact duplicate of an output on evaluation (e.jsonl) line 1",
        "no output",
        "empty output",
    ]
    assert tables.quarantine("eval_set")["kind"].tolist() == [
        "exact duplicate", "no output", "empty"
    ]  # fmt: skip
    assert tables.read_table("dolly_dataset")["category"].tolist() == ["qa"]
    assert tables.quarantine("dolly_dataset")["reason"][0].startswith("leaks evaluation row")
    assert tables.quarantine("candidate_datasets").empty


def test_the_catalog_shows_what_happened(tmp_path: Path) -> None:
    rows = [{"instruction": "Add", "output": "3"}] * 2 + [{"instruction": "Go", "output": LEAK}]
    result, _ = _run(_study(tmp_path, s=rows))
    (event,) = result.asset_materializations_for_node("candidate_datasets")
    shown = {key: value.value for key, value in event.metadata.items()}
    assert shown["dagster/row_count"] == 1
    assert shown["rows_by_source"] == {"s": 1}
    assert shown["quarantined_by_reason"] == {"leaks": 1, "exact duplicate": 1}
    assert "exact duplicate of s" in str(shown["quarantine_preview"])


def test_the_data_version_follows_the_content(tmp_path: Path) -> None:
    def version(study: Study) -> str:
        (event,) = _run(study)[0].asset_materializations_for_node("candidate_datasets")
        assert event.tags is not None
        return event.tags["dagster/data_version"]

    first = version(_study(tmp_path))
    assert first == version(_study(tmp_path))
    assert first != version(_study(tmp_path, s=[{"instruction": "Add 1 and 2", "output": "4"}]))


def test_a_source_without_usable_rows_fails_after_its_quarantine_is_written(tmp_path: Path) -> None:
    study = _study(
        tmp_path,
        s=[{"instruction": "Add", "output": "3"}],
        bad=[{"instruction": "Add", "output": "3"}, {"instruction": "Go", "output": LEAK}],
    )
    tables = Tables()
    evaluation = eval_set(study=study, warehouse=tables).value
    with pytest.raises(SourceError) as caught:
        candidates_asset()(
            eval_set=evaluation, study=study, warehouse=tables, gpu=GpuResource(device="cpu")
        )
    assert "source 'bad': none of its 2 rows can be used" in str(caught.value)
    assert "quarantined_examples" in str(caught.value)
    assert len(tables.quarantine("candidate_datasets")) == 2


def test_checks_catch_what_cleaning_should_have_dropped(tmp_path: Path) -> None:
    study = _study(tmp_path, s=[{"instruction": "Add", "output": "3"}], t=[{}])
    evaluation = eval_set(study=study, warehouse=Tables()).value
    pool = pd.DataFrame(
        {
            "example_id": ["x1", "x2"],
            "source": "s",
            "instruction": ["Say:", "Say"],
            "input": "",
            "output": [f"Well, {LEAK.upper()}!", "Nothing"],
        }
    )
    tables = Tables()
    for table in ("candidate_datasets", "dolly_dataset"):
        tables.replace_table(table, pool)
    assert leaking_examples([pool[:1], pool[1:]], evaluation, 8) == ["x1"]
    told = {"study": study, "warehouse": tables}
    assert not _checked(candidates_do_not_leak(evaluation, **told)).passed
    assert not _checked(unseen_does_not_leak(evaluation, **told)).passed
    empty = _checked(no_empty_source(**told))
    assert not empty.passed
    assert empty.metadata["empty_sources"].value == ["t"]
    assert _checked(eval_set_usable(evaluation)).passed
    assert not _checked(eval_set_usable(evaluation[:0])).passed
    assert not _checked(eval_set_usable(evaluation[1:])).passed


def test_every_asset_is_presented_and_every_check_blocks() -> None:
    for asset in ASSETS:
        (spec,) = asset.specs
        assert spec.description
        assert spec.group_name == "candidates"
        assert spec.owners
        assert "dagster/column_schema" in spec.metadata
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()
    assert all(spec.blocking for check in CHECKS for spec in check.check_specs)
