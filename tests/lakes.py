"""A lake for a test: a schema of its own in a running Postgres, and a folder."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from im_resources.lake_address import LakeAddress
from tests import servers


@contextmanager
def catalog() -> Iterator[tuple[servers.Postgres, str]]:
    """A running Postgres whose password this process knows, and the address of a database."""
    before = os.environ.get("PGPASSWORD")
    with servers.postgres() as server:
        os.environ["PGPASSWORD"] = servers.PASSWORD
        try:
            yield server, server.create("im")
        finally:
            os.environ.pop("PGPASSWORD")
            if before is not None:
                os.environ["PGPASSWORD"] = before


def lake_in(catalog: str, folder: Path | str) -> LakeAddress:
    """A lake that is not there yet."""
    return LakeAddress(catalog, f"study-{uuid.uuid4().hex[:12]}", str(folder))


def skip_without_servers() -> None:
    if (lacking := servers.missing()) is not None:
        pytest.skip(lacking)
