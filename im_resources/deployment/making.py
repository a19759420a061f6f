"""What a study works with in the deployment of this process: its warehouse and its adapters."""

from im_resources.adapter_store import AdapterStore
from im_resources.claims import CatalogClaims, Claims, FileClaims
from im_resources.deployment.reading import load_deployment
from im_resources.deployment.schema import Deployment, LakeWarehouse, RayExecutor
from im_resources.gpu import GpuResource
from im_resources.lake_address import LakeAddress
from im_resources.remote import RemoteFolders
from im_resources.remote.exports import Exports
from im_resources.study import Study
from im_resources.warehouse import Warehouse


def warehouse_of(study: Study, deployment: Deployment | None = None) -> Warehouse:
    """The study's tables. ``deployment``: default: that of ``$IM_DEPLOYMENT``."""
    return Warehouse(warehouse_address(study, deployment))


def warehouse_address(study: Study, deployment: Deployment | None = None) -> str:
    """Where the study's tables are, as `Warehouse` takes it; no secret is in it.

    Raises WarehouseError: the study's name cannot be that of a lake.
    """
    place = (deployment or load_deployment()).warehouse
    if isinstance(place, LakeWarehouse):
        return str(LakeAddress(place.catalog, study.name, place.data))
    return str(study.warehouse)


def adapters_of(study: Study, deployment: Deployment | None = None) -> AdapterStore:
    """The study's adapters. ``deployment``: default: that of ``$IM_DEPLOYMENT``."""
    deployment = deployment or load_deployment()
    root, warehouse = study.folder / "adapters", deployment.warehouse
    claims: Claims = FileClaims(root)
    if isinstance(warehouse, LakeWarehouse):
        claims = CatalogClaims(root, warehouse.catalog, study.name)
    return AdapterStore(root, _remote(study, deployment, "adapters"), claims)


def exports_of(study: Study, deployment: Deployment | None = None) -> Exports:
    """What the study writes for people: rule, selections, report. ``deployment``: as above."""
    return Exports(_remote(study, deployment or load_deployment(), "exports"))


def _remote(study: Study, deployment: Deployment, kind: str) -> RemoteFolders | None:
    if deployment.files is None:
        return None
    return RemoteFolders.at(f"{deployment.files}/{study.name}/{kind}", study.folder / ".known")


def gpu_of(study: Study, deployment: Deployment | None = None) -> GpuResource:
    """What runs the study's models. ``deployment``: default: that of ``$IM_DEPLOYMENT``.

    Raises DeploymentError when the study cannot run there: a cluster needs a precision that is
    said, and not measured on each machine.
    """
    deployment = deployment or load_deployment()
    if not isinstance(deployment.executor, RayExecutor):
        return GpuResource()
    from im_resources.cluster.gpu import RayGpu

    return RayGpu.of(study, deployment)
