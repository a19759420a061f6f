"""A study whose machines share nothing but a catalog and a place for files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from im_resources.cluster.gpu import RayGpu
from im_resources.deployment.making import adapters_of, warehouse_of
from im_resources.deployment.schema import Deployment
from im_resources.plugins import load_plugins
from im_resources.study import Study, load_study
from tests.cluster.nodes import RayCluster, ray_cluster
from tests.experiments import small_study
from tests.language_model.models import write_model
from tests.servers import PASSWORD, Postgres, missing, postgres

PLUGINS = ["tests.cluster.trainers"]


@dataclass
class Site:
    """A cluster with a catalog, and a folder that all reach, as an object store."""

    folder: Path
    cluster: RayCluster
    database: Postgres
    model: Path

    def deployment(self, **executor: Any) -> Deployment:
        """Each group on one core; ``executor`` replaces its settings."""
        settings = {"kind": "ray", "address": self.cluster.address, "device": "cpu", "gpus": 0,
                    "cpus": 1, "group_size": 1, "wait_minutes": 0.5}  # fmt: skip
        return Deployment.model_validate(
            {
                "name": "tests",
                "executor": settings | executor,
                "warehouse": {
                    "kind": "ducklake",
                    "catalog": self.database.address("im"),
                    "data": str(self.folder / "tables"),
                },
                "files": str(self.folder / "files"),
            }
        )

    def write_deployment(self, **executor: Any) -> Path:
        """The same as a file, for IM_DEPLOYMENT."""
        path = self.folder / "cluster.yaml"
        content = self.deployment(**executor).model_dump(mode="json")
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def study(self, name: str, **settings: Any) -> Study:
        """Four small mixtures (``small_study``), of a study of its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        source = {"path": str(self.model)}
        blocks: dict[str, Any] = {"name": name, "plugins": PLUGINS} | settings
        study = load_study(small_study.write_profile(folder, source, **blocks))
        load_plugins(study)
        return study

    def gpu(self, study: Study, **executor: Any) -> RayGpu:
        return RayGpu.of(study, self.deployment(**executor))

    def store(self, study: Study) -> Any:
        return adapters_of(study, self.deployment())

    def warehouse(self, study: Study) -> Any:
        return warehouse_of(study, self.deployment())


def patient(**options: Any) -> dict[str, Any]:
    """``finetuning`` by the tests' own trainer."""
    return {"finetuning": {"trainer": "patient", "epochs": 2, "batch_size": 2,
                           "learning_rate": 2e-3, "options": options}}  # fmt: skip


@contextmanager
def made(folder: Path, workers: int) -> Iterator[Site]:
    """A site, gone afterwards with all of its processes."""
    if (lacking := missing()) is not None:
        pytest.skip(lacking)
    kept = {name: os.environ.get(name) for name in ("IM_HOME", "PGPASSWORD")}
    os.environ |= {"IM_HOME": str(folder / "driver"), "PGPASSWORD": PASSWORD}
    model = write_model(folder / "model")
    (folder / "files").mkdir()
    (folder / "tables").mkdir()
    try:
        with postgres() as database, ray_cluster(
            workers, environment={"PGPASSWORD": PASSWORD}
        ) as cluster:  # fmt: skip
            database.create("im")
            yield Site(folder, cluster, database, model)
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
