import os
from collections.abc import Iterator

import pytest

from im_resources.remote import faults
from tests.remote.proxy import Proxy, proxy


@pytest.fixture
def flaky(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The object store behind a proxy, without the libraries' own retries, and with short waits."""
    import s3fs

    with proxy(os.environ["AWS_ENDPOINT_URL"]) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 1)
        monkeypatch.setattr(faults, "FIRST_WAIT", 0.02)
        s3fs.S3FileSystem.clear_instance_cache()
        yield running
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["a shared folder", "an object store"])
def url(request: pytest.FixtureRequest, tmp_path: object) -> str:
    """A URL of each kind, where nothing is."""
    if request.param == "an object store":
        return str(request.getfixturevalue("s3"))
    return f"{tmp_path}/shared"
