"""What a study works with in the deployment of this process: its warehouse and its adapters."""

from im_resources.adapter_store import AdapterStore
from im_resources.deployment.reading import load_deployment
from im_resources.deployment.schema import Deployment, LakeWarehouse
from im_resources.lake_address import LakeAddress
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
    return AdapterStore(study.folder / "adapters")
