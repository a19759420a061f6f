"""What every test needs before anything else is imported: no network, and a state folder to lose.

The cache of converted models is the checkout's own: a conversion takes seconds, and its content is
keyed by the hash of the model file.
"""

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from im_resources.lake_address import LakeAddress
from tests import lakes, servers

# A busy machine is no fault: hypothesis' own deadline for an example is an assertion of time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

_HOME = tempfile.mkdtemp(prefix="im-tests-")
os.environ["IM_HOME"] = f"{_HOME}/var"
os.environ["DAGSTER_HOME"] = str(Path(__file__).resolve().parent.parent)
# Outside of IM_HOME, where every study has its own history.
os.environ["DAGSTER_STATE"] = f"{_HOME}/dagster"
os.environ.pop("IM_PROFILE", None)
os.environ["HF_HUB_OFFLINE"] = "1"
# Read once, when torch is imported: idle threads that spin make two busy processes crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: a worker that gets one last keeps all others waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # otherwise as it was


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def whole_study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Home and profile of a finished study with every part, to read or to copy.

    It is run once: the first worker that needs it runs it, and the others wait for that.
    """
    from tests.whole_study import run_whole_study

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all workers
    home, over = folder / "whole", folder / "whole.over"
    with (folder / "whole.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        if not over.exists():
            shutil.rmtree(home, ignore_errors=True)  # of a worker that failed
            home.mkdir()
            run_whole_study(home)
            over.touch()
    return home, home / "whole.yaml"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def object_store_environment() -> Iterator[dict[str, str]]:
    """A running S3-compatible store; the variables under which it is reached."""
    if (lacking := servers.missing()) is not None:
        pytest.skip(lacking)
    with servers.object_store() as variables:
        yield variables


@pytest.fixture
def s3(object_store_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty folder in an object store that this process reaches."""
    import s3fs

    for name, value in object_store_environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # of another test, with another address
    yield f"s3://mining/{uuid.uuid4().hex}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def catalog_of_session() -> Iterator[str]:
    """The address of a Postgres database that all tests of a worker share."""
    lakes.skip_without_servers()
    with lakes.catalog() as (_, address):
        yield address


@pytest.fixture
def lake_address(catalog_of_session: str, tmp_path: Path) -> LakeAddress:
    """A lake that is not there yet, with its data in a folder."""
    return lakes.lake_in(catalog_of_session, tmp_path / "lake")
