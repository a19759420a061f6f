"""What Dagster loads: the fixed asset names, how they present themselves, and at what cost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph

from im_assets.definitions import definitions, defs
from im_assets.experiments.experiment import arm_key, bin_key, seed_key, seed_of
from im_assets.mixtures.experiment import mixture_experiment
from im_assets.mixtures.partitions import sync_study
from im_assets.scoring.registry import IndicatorError, chosen
from im_resources.study import PROFILES, PROJECT_ROOT, ScoringSettings, load_study
from im_resources.warehouse_io_manager import WarehouseIOManager

# The names that users, the documentation and other tools rely on, with what each is made from.
UPSTREAM = {
    "eval_set": set(),
    "candidate_datasets": {"eval_set"},
    "dolly_dataset": {"eval_set"},
    "mixture_seeds": {"candidate_datasets"},
    "mixed_samples": {"candidate_datasets", "mixture_seeds"},
    "example_scores": {"candidate_datasets"},
    "dolly_scores": {"dolly_dataset"},
    "finetuned_adapters": {"candidate_datasets", "mixed_samples"},
    "base_losses": {"eval_set"},
    "eval_losses": {"base_losses", "eval_set", "finetuned_adapters"},
    "indicator_table": {
        "candidate_datasets",
        "eval_losses",
        "eval_set",
        "example_scores",
        "finetuned_adapters",
        "mixed_samples",
        "mixture_seeds",
    },
    "quality_rule": {"indicator_table", "mixture_seeds"},
    "source_shares": {"candidate_datasets", "indicator_table", "mixed_samples"},
    "dolly_indicators": {"dolly_dataset", "dolly_scores", "quality_rule"},
    "dolly_selection": {"dolly_dataset", "dolly_indicators", "quality_rule"},
}
PARTITIONED = {"mixed_samples", "finetuned_adapters", "eval_losses"}
# Files, not a table; and tables whose columns are the profile's indicators, known when it runs.
WITHOUT_FIXED_COLUMNS = {
    "finetuned_adapters",
    "univariate_adapters",
    "selection_adapters",
    "indicator_table",
    "seed_design",
    "study_report",
}
BLOCKING = {
    "candidate_datasets": {"no_empty_source", "candidates_do_not_leak"},
    "dolly_dataset": {"unseen_does_not_leak"},
    "eval_set": {"eval_set_usable"},
    "base_losses": {"base_losses_are_finite"},
    "eval_losses": {"eval_losses_are_finite"},
    "indicator_table": {"indicator_table_is_finite", "mixtures_parts_agree"},
}
HEAVY = ["torch", "transformers", "peft", "bitsandbytes", "sentence_transformers",
         "altair", "vl_convert", "PIL"]  # fmt: skip

GRAPH: BaseAssetGraph[Any] = defs.resolve_asset_graph()
NAMES = {key.to_user_string() for key in GRAPH.get_all_asset_keys()}


def loaded(code: str, **environment: str) -> Any:
    """What ``code`` prints as JSON in a fresh interpreter, without any data folder set."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("IM_PROFILE", "IM_DATA_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", UPSTREAM)
def test_an_asset_is_made_from(name: str) -> None:
    parents = GRAPH.get(dg.AssetKey(name)).parent_keys
    assert {key.to_user_string() for key in parents} == UPSTREAM[name]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_an_asset_presents_itself(name: str) -> None:
    node = GRAPH.get(dg.AssetKey(name))
    assert len(node.description or "") > 20
    assert node.group_name not in (None, "default")
    assert node.owners
    assert node.kinds
    assert node.code_version
    # One run can hold a whole study only if no asset asks for runs of its own.
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    if name not in WITHOUT_FIXED_COLUMNS:
        schema = node.metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert schema.columns
        assert all(column.description and column.type != "string" for column in schema.columns)


def test_groups_are_the_rooms() -> None:
    rooms = {path.name for path in (PROJECT_ROOT / "im_assets").iterdir() if path.is_dir()}
    assert {GRAPH.get(dg.AssetKey(name)).group_name for name in NAMES} <= rooms


def test_seeds_are_the_partitions() -> None:
    study = load_study("demo")
    for name in UPSTREAM:
        partitions = GRAPH.get(dg.AssetKey(name)).partitions_def
        if name in PARTITIONED:
            assert partitions == mixture_experiment(study).partitions
            with dg.DagsterInstance.ephemeral() as instance:
                sync_study(instance, study)
                keys = partitions.get_partition_keys(dynamic_partitions_store=instance)
            assert keys[0] == "seed-000"
            assert len(keys) == len(study.mixtures.seed_numbers)
        else:
            assert partitions is None


def test_partition_keys_name_their_seed() -> None:
    assert seed_of(bin_key("len_out", 3)) == 0
    assert seed_of(arm_key("rule", 1000, 12)) == 12
    assert [seed_of(seed_key(seed)) for seed in (0, 7, 999, 1000)] == [0, 7, 999, 1000]
    for wrong in ("7", "seed-7", "seed-0x7", "seed-007 ", "bin-000", "-seed-000", ""):
        with pytest.raises(ValueError, match="seed-000"):
            seed_of(wrong)


def test_a_bad_table_stops_what_is_made_from_it() -> None:
    found: dict[str, set[str]] = {}
    for key in GRAPH.asset_check_keys:
        if GRAPH.get(key).blocking:
            found.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    assert {name: checks & found.get(name, set()) for name, checks in BLOCKING.items()} == BLOCKING


def test_what_uses_the_gpu_waits_for_it() -> None:
    pools = {name: GRAPH.get(dg.AssetKey(name)).pools for name in NAMES}
    for name in ("example_scores", "dolly_scores", "finetuned_adapters", "eval_losses"):
        assert pools[name] == {"gpu"}
    assert not pools["mixed_samples"]


def test_the_jobs_hold_every_asset_and_check_once() -> None:
    jobs = [defs.resolve_job_def(job.name) for job in defs.jobs or ()]
    assert [job.name for job in jobs[:2]] == ["data", "study"]
    held = [k.to_user_string() for job in jobs for k in job.asset_layer.executable_asset_keys]
    assert sorted(held) == sorted(NAMES)
    checks = [key for job in jobs for key in job.asset_layer.asset_graph.asset_check_keys]
    assert set(checks) == GRAPH.asset_check_keys
    dg.Definitions.validate_loadable(defs)


def test_a_study_without_evidence_is_data_mixtures_and_report() -> None:
    without = dict.fromkeys(("univariate", "validation", "mining"))
    bare = load_study("demo").model_copy(update=without)
    assert bare.judge is None
    names = [job.name for job in definitions(bare, "demo").jobs or ()]
    assert set(names) <= {"data", "study", "reporting"}


def test_a_ready_rule_brings_only_what_applies() -> None:
    found = definitions(load_study("ready_rule"), "ready_rule")
    graph = found.resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    pool = {f"dolly_{kind}" for kind in ("dataset", "scores", "indicators", "selection")}
    assert names == {"eval_set", "quality_rule", "study_plan", "study_report", *pool}
    assert all(graph.get(key).is_materializable for key in graph.get_all_asset_keys())
    assert "Mixtures" not in " ".join(str(job.description) for job in found.jobs or ())
    assert all(graph.get(key).partitions_def is None for key in graph.get_all_asset_keys())


def test_own_runs_bring_nothing_that_is_drawn_or_trained() -> None:
    found = definitions(load_study("own_runs"), "own_runs")
    graph = found.resolve_asset_graph()
    parents = {
        key.to_user_string(): {one.to_user_string() for one in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert parents["finished_runs"] == {"candidate_datasets"}
    assert parents["example_scores"] == {"candidate_datasets", "finished_runs"}
    assert parents["indicator_table"] == {"finished_runs", "example_scores"}
    assert parents["quality_rule"] == {"indicator_table"}
    trained = {"mixed_samples", "finetuned_adapters", "eval_losses", "base_losses", "seed_design"}
    assert not trained & parents.keys()
    assert not any("Mixtures" in str(job.description) for job in found.jobs or ())


def test_another_study_has_its_own_seeds_and_warehouse() -> None:
    study = load_study("demo")
    mixtures = study.mixtures.model_copy(update={"seeds": 5})
    other = definitions(study.model_copy(update={"name": "other", "mixtures": mixtures}), "demo")
    node = other.resolve_asset_graph().get(dg.AssetKey("mixed_samples"))
    assert node.partitions_def is not None
    with dg.DagsterInstance.ephemeral() as instance:
        sync_study(instance, study.model_copy(update={"name": "other", "mixtures": mixtures}))
        keys = node.partitions_def.get_partition_keys(dynamic_partitions_store=instance)
    assert len(keys) == 5
    assert other.resources is not None
    assert other.resources["io_manager"].database.endswith("/other/warehouse.duckdb")


def test_jobs_and_definitions_name_their_study() -> None:
    study = load_study("demo").model_copy(update={"name": "other"})
    other = definitions(study, "mine.yaml")
    tags = {job.name: dict(other.resolve_job_def(job.name).tags) for job in other.jobs or ()}
    assert len(tags) > 1
    assert all(found["study"] == "other" for found in tags.values())
    said = {name: value.value for name, value in other.metadata.items()}
    assert said == {"study": "other", "label": study.label, "profile": "mine.yaml"}


def test_loading_the_definitions_imports_no_model_library() -> None:
    code = (
        "import json, sys, im_assets.definitions; "
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    assert loaded(code) == []


@pytest.mark.parametrize("profile", ["paper", "real_small"])
def test_a_profile_loads_without_its_data_and_models(profile: str) -> None:
    code = (
        "import json; from im_assets.definitions import defs; graph = defs.resolve_asset_graph(); "
        "print(json.dumps([k.to_user_string() for k in graph.get_all_asset_keys()]))"
    )
    assert set(loaded(code, IM_PROFILE=profile)) >= UPSTREAM.keys()


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_no_step_pickles_what_it_makes(profile: str) -> None:
    """Dagster's own IO manager would; a step that names another one has to be seen here too."""
    loaded_ = definitions(load_study(profile), profile)
    jobs = [loaded_.resolve_job_def(job.name) for job in loaded_.jobs or ()]
    by: set[type] = set()
    for job in [*jobs, loaded_.resolve_implicit_global_asset_job_def()]:
        for node in job.nodes:  # assets and checks
            for output in node.definition.output_defs:
                manager: Any = job.resource_defs[output.io_manager_key]
                by.add(manager.configurable_resource_cls)
    assert by == {WarehouseIOManager}


def test_what_is_no_table_is_refused_and_not_pickled(tmp_path: Path) -> None:
    @dg.asset
    def a_dict() -> dict[str, int]:
        return {"a": 1}

    manager = WarehouseIOManager(database=str(tmp_path / "warehouse.duckdb"))
    result = dg.materialize([a_dict], resources={"io_manager": manager}, raise_on_error=False)
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert "does not have a handler for type '<class 'dict'>'" in str(failure.step_failure_data)


def test_an_unknown_indicator_stops_the_code_location_and_names_the_right_one(
    tmp_path: Path,
) -> None:
    profile = yaml.safe_load((PROFILES / "demo.yaml").read_text("utf-8"))
    profile["scoring"]["indicators"]["mtld"] = "mtdl"
    path = tmp_path / "typo.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    with pytest.raises(IndicatorError, match=r"scoring\.indicators\.mtld.*did you mean 'mtld'"):
        definitions(load_study(str(path)), str(path))


def test_an_unknown_option_of_an_indicator_is_named() -> None:
    wanted: dict[str, Any] = {"knn_6": {"backend": "nearest_neighbour", "options": {"neighbor": 6}}}
    with pytest.raises(IndicatorError, match="did you mean 'neighbour'"):
        chosen(ScoringSettings.model_validate({"indicators": wanted}))
    wanted["knn_6"]["options"] = {"neighbour": "six"}
    with pytest.raises(IndicatorError, match=r"knn_6\.options\.neighbour: .*found 'six'"):
        chosen(ScoringSettings.model_validate({"indicators": wanted}))
