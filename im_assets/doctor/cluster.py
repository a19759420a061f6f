"""Findings about the Ray cluster of a deployment: is it there, is each node fit for the work?"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from im_assets.doctor.files import examined
from im_assets.doctor.findings import Finding
from im_resources.cluster.connection import Node, connected, need_of
from im_resources.cluster.errors import ClusterError
from im_resources.cluster.versions import differences, versions
from im_resources.cluster.words import of_need
from im_resources.deployment import DeploymentError, LakeWarehouse, RayExecutor, load_deployment
from im_resources.deployment.making import gpu_of
from im_resources.deployment.schema import Deployment
from im_resources.study import Study

AREA = "cluster"
CLOCK = 5.0  # seconds that a node's clock may differ
SAME = "install the same version of the project there as here, with the extra `cluster`"


def cluster(study: Study | None) -> Iterator[Finding]:
    """All that there is to say of the deployment's cluster; nothing in one without."""
    try:
        deployment = load_deployment()
        if not isinstance(deployment.executor, RayExecutor):
            return
        if study is not None:
            gpu_of(study, deployment)
        yield from _found(deployment, deployment.executor)
    except DeploymentError as error:
        yield Finding("error", AREA, str(error), "correct the deployment's file, or the profile")
    except ClusterError as error:
        what, _, remedy = str(error).rpartition("; ")
        yield Finding("error", AREA, what, remedy)


def _found(deployment: Deployment, executor: RayExecutor) -> Iterator[Finding]:
    there, need = connected(executor), need_of(executor)
    looked = there.look(partial(unreachable, deployment.model_dump_json()))
    slots = {node: node.slots(need) for node in looked}
    count, words = sum(slots.values()), of_need(need)
    if count:
        what = f"{executor.address}: {len(looked)} nodes, room for {count} groups of {words}"
        yield Finding("ok", AREA, what)
    else:
        yield Finding(
            "warning",
            AREA,
            f"{executor.address}: none of its {len(looked)} nodes has {words}",
            f"add one within the {executor.wait_minutes:g} minutes that a group waits "
            "(executor.wait_minutes), or ask for less in the deployment's executor",
        )
    for node, said in looked.items():
        yield from _of_node(node, slots[node], said)


def _of_node(node: Node, slots: int, said: dict[str, Any]) -> Iterator[Finding]:
    theirs = said["versions"]
    if isinstance(theirs, str):
        yield Finding("error", AREA, f"{node.told()}: {theirs}", SAME)
        return
    if differing := differences(versions(), theirs):
        yield Finding("error", AREA, f"{node.told()}: another version: {differing}", SAME)
        return
    if said["clock"] > CLOCK:
        what = f"{node.told()}: its clock differs from this machine's by {said['clock']:.0f} s"
        yield Finding("warning", AREA, what, "let all machines set their clocks by NTP")
    faults = said["answer"]
    for what, remedy in faults:
        yield Finding("error", AREA, f"{node.told()}: {what}", remedy)
    if not faults:
        groups = f"{slots} groups" if slots else "no group"
        what = f"{node.told()}: the same versions, reaches tables and files; {groups} at once"
        yield Finding("ok", AREA, what)


def unreachable(deployment: str) -> list[tuple[str, str]]:
    """What this machine cannot reach of a deployment, as JSON, with what to do; run on a node."""
    placed = Deployment.model_validate_json(deployment)
    found = []
    if isinstance(placed.warehouse, LakeWarehouse):
        import psycopg2

        from im_resources.remote.faults import without_secrets

        try:
            psycopg2.connect(placed.warehouse.catalog, connect_timeout=5).close()
        except psycopg2.OperationalError as error:
            said = without_secrets(" ".join(str(error).split()))
            remedy = "set $PGPASSWORD in the node's environment, and let it reach the database"
            found.append((f"cannot reach the catalog: {said}", remedy))
    for url in {placed.files, getattr(placed.warehouse, "data", None)}:
        if url is None:
            continue
        finding = examined(url)
        if finding.level == "error":
            found.append((finding.what, f"on the node: {finding.remedy}"))
    return found
