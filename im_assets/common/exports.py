"""What an asset has written into the study's folder, published at the deployment's URL too."""

from pathlib import Path
from typing import Any

import dagster as dg

from im_resources.deployment.making import exports_of
from im_resources.study import Study


def published(study: Study, path: Path) -> dict[str, Any]:
    """Publish a file or folder that is complete; what the catalog shows of it: the URL of the
    folder that holds this version. Nothing in a deployment without `files`.

    Raises RemoteError when it cannot be uploaded.
    """
    url = exports_of(study).publish(path)
    return {} if url is None else {"published": dg.MetadataValue.text(url)}
