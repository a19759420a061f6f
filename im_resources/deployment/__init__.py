"""Where a study runs: the machines that do its work, the place of its tables and of its files.

A deployment is a small YAML file in ``deployments/``, chosen by ``$IM_DEPLOYMENT`` (default:
``this_machine``). No asset knows it, no fingerprint holds it: the same profile gives the same
results in all of them. Secrets are never in it, but in the environment of each process.
"""

from im_resources.deployment.reading import DeploymentError, load_deployment
from im_resources.deployment.schema import (
    Capacity,
    Deployment,
    FileWarehouse,
    LakeWarehouse,
    LocalExecutor,
    RayExecutor,
)

__all__ = [
    "Capacity",
    "Deployment",
    "DeploymentError",
    "FileWarehouse",
    "LakeWarehouse",
    "LocalExecutor",
    "RayExecutor",
    "load_deployment",
]
