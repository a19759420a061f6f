"""What the tests of groups, of losses and of scores share."""

import logging
from collections.abc import Iterator

import pytest

from tests.cluster.fixtures import Site, made

LOG = "dagster.builtin.cluster"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster of two nodes, of the tests of one file."""
    with made(tmp_path_factory.mktemp("site"), 2) as found:
        yield found


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    """What is said of groups is captured."""
    caplog.set_level(logging.INFO, LOG)
    logging.getLogger(LOG).propagate = True
