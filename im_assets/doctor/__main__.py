"""``python -m im_assets.doctor``: all findings; 1 when something keeps the study from running."""

import argparse
import json
import os
import sys
from collections.abc import Iterator

from im_assets.doctor.cluster import cluster
from im_assets.doctor.files import files
from im_assets.doctor.findings import Finding, as_json, printed, runs, verdict
from im_assets.doctor.history import history, location
from im_assets.doctor.installation import installation
from im_assets.doctor.lake import lake
from im_assets.doctor.machine import device, disk, memory
from im_assets.doctor.sources import data, models, profile
from im_assets.doctor.warehouse import warehouse
from im_resources.deployment import DeploymentError
from im_resources.deployment.making import warehouse_address
from im_resources.lake_address import LakeAddress
from im_resources.study import PROJECT_ROOT, Study, state_home
from im_resources.study.environment import STATE
from im_resources.tables import WarehouseError


def main() -> int:
    """Print the findings for the study in ``IM_PROFILE``."""
    parser = argparse.ArgumentParser(prog="python -m im_assets.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON, for other programs")
    as_values = parser.parse_args().json
    found = list(examine(os.environ.get("IM_PROFILE") or "demo"))
    if as_values:
        print(json.dumps(as_json(found), ensure_ascii=False, indent=1))
    else:
        print(f"{printed(found)}\n\n{verdict(found)}")
    return 0 if runs(found) else 1


def examine(name: str) -> Iterator[Finding]:
    """Everything that there is to say of a profile's study on this machine."""
    yield from installation()
    study, finding = profile(name)
    yield finding
    if study is not None:
        yield from data(study)
    yield from device(study)
    yield from memory()
    yield from files()
    yield from cluster(study)
    yield from disk(study.folder if study else state_home())
    if study is None:
        return
    yield from models(study)
    yield from warehouse_at(study)
    # As `enter_study` does, without making the folder: this only reads.
    os.environ.setdefault("DAGSTER_HOME", str(PROJECT_ROOT))
    os.environ.setdefault(STATE, str(study.history))
    repository, finding = location(study, name)
    yield finding
    yield from history(study, repository)


def warehouse_at(study: Study) -> Iterator[Finding]:
    """Findings on the study's tables, where the deployment has them."""
    try:
        address = LakeAddress.parse(warehouse_address(study))
    except (DeploymentError, WarehouseError) as error:
        yield Finding("error", "warehouse", str(error), "mend the deployment's file")
        return
    yield from warehouse(study.warehouse) if address is None else lake(address)


if __name__ == "__main__":
    sys.exit(main())
