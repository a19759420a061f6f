"""Findings about the place of the files of a deployment: whether all can be done there."""

import os
import socket
from collections.abc import Iterator

from im_assets.doctor.findings import Finding
from im_resources.deployment import DeploymentError, load_deployment
from im_resources.remote import Place, RemoteError

PATIENCE = 5.0  # seconds for a store that does not answer
AREA = "files"
CONTENT = b"written by the doctor, which deletes it at once\n"


def files() -> Iterator[Finding]:
    """Whether a file can be written, read, listed and deleted at the deployment's `files`; nothing
    in one without."""
    try:
        url = load_deployment().files
    except DeploymentError as error:
        yield Finding("error", AREA, str(error), "correct the deployment's file")
        return
    if url is not None:
        yield examined(url)


def examined(url: str) -> Finding:
    """What can be done at a URL, tried with a small file that is deleted again."""
    place = Place(url, patience=PATIENCE)
    if place.local and not os.path.isdir(url.removeprefix("file://")):
        what = f"there is no folder {url}"
        remedy = "mount the shared folder there on every node, or create it"
        return Finding("error", AREA, what, remedy)
    name = f".doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        place.write(name, CONTENT)
        read, listed = place.read(name), name in place.listing()
        place.delete_file(name)
        left = place.read(name)
    except RemoteError as error:
        what, _, remedy = str(error).rpartition("; ")
        return Finding("error", AREA, what, remedy)
    if read != CONTENT or not listed or left is not None:
        what = f"{place.url}: what was just written is not read, listed or deleted as it should be"
        return Finding("error", AREA, what, "use a store that shows at once what was written")
    return Finding("ok", AREA, f"{place.url}: can be written, read, listed and deleted")
