"""A deployment is read whole or refused with the field, and never with a secret."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from im_resources.deployment import (
    DeploymentError,
    FileWarehouse,
    LakeWarehouse,
    LocalExecutor,
    RayExecutor,
    load_deployment,
)
from im_resources.study import load_study
from im_resources.study.environment import environment, in_a_new_shell

CLUSTER: dict[str, Any] = {
    "name": "mine",
    "executor": {"kind": "ray", "address": "ray://head:10001"},
    "warehouse": {
        "kind": "ducklake",
        "catalog": "postgresql://im@db:5432/im",
        "data": "s3://mining/tables/",
    },
    "files": "s3://mining/files",
}
PLACES = {
    "IM_RAY_ADDRESS": "ray://h:1",
    "IM_CATALOG": "postgresql://im@h/im",
    "IM_BUCKET": "s3://b",
}


def write(folder: Path, **changes: Any) -> str:
    content = {k: v for k, v in (CLUSTER | changes).items() if v is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_without_a_word_everything_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IM_DEPLOYMENT", raising=False)
    found = load_deployment()
    assert found.executor == LocalExecutor()
    assert found.warehouse == FileWarehouse()
    assert found.files is None


def test_a_cluster(tmp_path: Path) -> None:
    found = load_deployment(write(tmp_path))
    assert isinstance(found.executor, RayExecutor)
    assert (found.executor.device, found.executor.gpus) == ("cuda", 1)
    assert isinstance(found.warehouse, LakeWarehouse)
    assert found.warehouse.data == "s3://mining/tables"


def test_the_cluster_that_comes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLACES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IM_DEPLOYMENT", "ray")
    assert load_deployment().files == "s3://b/files"


def test_its_variables_have_to_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DeploymentError, match=r"catalog.*IM_CATALOG, which is not set"):
        load_deployment("ray")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"warehouse": {**CLUSTER["warehouse"], "catalog": "mysql://db/i"}}, "warehouse.*Postgres"),
        ({"warehouse": {**CLUSTER["warehouse"], "catalog": "postgresql://db"}}, "Postgres"),
        ({"warehouse": {**CLUSTER["warehouse"], "data": "s3:/b"}}, "data.*no URL"),
        ({"files": "s3://"}, "files.*no URL"),
        ({"files": None}, "needs tables and files that every node reaches"),
        ({"warehouse": None}, "needs tables and files that every node reaches"),
        ({"executor": {**CLUSTER["executor"], "device": "cpu"}}, "gpus: 1 with device: cpu"),
        ({"executor": {**CLUSTER["executor"], "gpus": 0}}, "gpus: 0 with device: cuda"),
        ({"executor": {"kind": "slurm"}}, "executor.*slurm"),
        ({"executor": {**CLUSTER["executor"], "cpu": 2}}, "executor.*cpu"),
        ({"name": "../x"}, "name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeploymentError, match=rf"(?s)mine.yaml.*{said}"):
        load_deployment(write(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"warehouse": {**CLUSTER["warehouse"], "catalog": "postgresql://im:hunter2@db/im"}},
        {"warehouse": {**CLUSTER["warehouse"], "catalog": "postgresql://db/im?password=hunter2"}},
        {"files": "s3://key:hunter2@mining/files"},
        {"executor": {"kind": "ray", "address": "ray://u:hunter2@head:10001"}},
    ],
)
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DeploymentError, match="environment variable of its kind") as raised:
        load_deployment(write(tmp_path, **changes))
    assert "hunter2" not in str(raised.value)


def test_an_unknown_one_is_told_with_those_that_there_are() -> None:
    with pytest.raises(DeploymentError, match=r"did you mean 'ray'.*known: ray, this_machine"):
        load_deployment("rey")


def test_each_has_a_history_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IM_PROFILE", "demo")
    here = load_study("demo").history
    monkeypatch.setenv("IM_DEPLOYMENT", write(tmp_path))
    study, variables = environment()
    assert here.name == "dagster"
    assert variables["DAGSTER_STATE"] == str(study.history) == str(here.with_name("dagster-mine"))
    assert variables["IM_DEPLOYMENT"] == str(tmp_path / "mine.yaml")
    assert f"IM_DEPLOYMENT={tmp_path}/mine.yaml " in in_a_new_shell("make dev")


def test_a_command_ends_with_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_DEPLOYMENT", "nowhere")
    with pytest.raises(SystemExit, match="unknown deployment 'nowhere'"):
        environment()
    assert "DAGSTER_STATE" in os.environ
