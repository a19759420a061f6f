"""Reading a deployment: one YAML file becomes one validated, immutable Deployment."""

import os
from pathlib import Path

from pydantic import ValidationError

from im_resources.deployment.schema import Deployment, FileWarehouse, LocalExecutor, RayExecutor
from im_resources.study.places import DEPLOYMENT, PROJECT_ROOT, THIS_MACHINE, ProfileError
from im_resources.study.reading import did_you_mean
from im_resources.study.yaml_text import read_yaml

DEPLOYMENTS = PROJECT_ROOT / "deployments"


class DeploymentError(ValueError):
    """A deployment that cannot be used; names the field, its value and what is accepted."""


def load_deployment(deployment: str | None = None) -> Deployment:
    """Read and check a deployment.

    Args:
        deployment: the name of a file in ``deployments/``, or a path ending in .yaml; default:
            ``$IM_DEPLOYMENT``, else ``this_machine``.

    Raises:
        DeploymentError: no such file, not YAML, or a field is wrong; says which and what would do.
    """
    path = deployment_path(deployment or os.environ.get(DEPLOYMENT) or THIS_MACHINE)
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise DeploymentError(f"{path}: expected settings as `key: value`")
        found = Deployment.model_validate(content)
    except ValidationError as error:
        raise DeploymentError(f"{path}:\n" + "\n".join(_faults(error))) from error
    except ProfileError as error:  # of the file, or of a variable that is not set
        raise DeploymentError(str(error)) from error
    _check(found, path)
    return found


def deployment_path(deployment: str) -> Path:
    """The file of a deployment. Raises DeploymentError when there is none."""
    known = sorted(path.stem for path in DEPLOYMENTS.glob("*.yaml"))
    if deployment in known:
        return DEPLOYMENTS / f"{deployment}.yaml"
    path = Path(deployment)
    if path.suffix in (".yaml", ".yml"):
        for place in (Path(), PROJECT_ROOT, DEPLOYMENTS):
            if (place / path).is_file():
                return (place / path).resolve()
    raise DeploymentError(
        f"{DEPLOYMENT}: unknown deployment {deployment!r}{did_you_mean(path.stem, known)}; known: "
        f"{', '.join(known)} (or give the path of a .yaml file)"
    )


def _check(found: Deployment, path: Path) -> None:
    executor = found.executor
    if isinstance(executor, LocalExecutor):
        return
    assert isinstance(executor, RayExecutor)
    if (executor.device == "cuda") != (executor.gpus > 0):
        raise DeploymentError(
            f"{path}:\n  executor.gpus: {executor.gpus:g} with device: {executor.device}; a group "
            "on cuda has a GPU or a part of one, one on the cpu has gpus: 0"
        )
    if isinstance(found.warehouse, FileWarehouse) or found.files is None:
        raise DeploymentError(
            f"{path}:\n  executor.kind: ray needs tables and files that every node reaches: set "
            "warehouse.kind: ducklake, and `files`"
        )


def _faults(error: ValidationError) -> list[str]:
    """One line a fault. An address that was refused for a secret in it is not repeated."""
    lines = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"]) or "deployment"
        message = fault["msg"].removeprefix("Value error, ")
        shown = (
            "" if fault["type"] in ("value_error", "missing") else f" (found {fault['input']!r})"
        )
        lines.append(f"  {field}: {message}{shown}")
    return lines
