"""What runs print, in a bucket: seen from another machine, also while the run goes on."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType as IO

from im_resources import compute_logs
from im_resources.compute_logs import BucketComputeLogManager
from tests.webserver import wait_until


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    (tmp_path / "bucket").mkdir()
    return f"file://{tmp_path / 'bucket'}"


def machine(folder: Path, bucket: str) -> dg.DagsterInstance:
    """The instance of one machine, whose logs go into the bucket, as dagster.yaml says it."""
    folder.mkdir()
    manager = {
        "module": "im_resources.compute_logs",
        "class": "BucketComputeLogManager",
        "config": {"bucket": bucket, "base_dir": str(folder / "own")},
    }
    return dg.DagsterInstance.local_temp(
        str(folder), {"telemetry": {"enabled": False}, "compute_logs": manager}
    )


@pytest.fixture
def writer(tmp_path: Path, bucket: str) -> Iterator[dg.DagsterInstance]:
    with machine(tmp_path / "writer", bucket) as instance:
        yield instance


@pytest.fixture
def reader(tmp_path: Path, bucket: str) -> BucketComputeLogManager:
    return BucketComputeLogManager(bucket, str(tmp_path / "reader"))


@dg.asset
def talking() -> None:
    print("as many as 5 ÷ 2")
    print("careful", file=sys.stderr)


def test_another_machine_reads_what_a_run_printed(
    writer: dg.DagsterInstance, reader: BucketComputeLogManager, bucket: str
) -> None:
    result = dg.materialize([talking], instance=writer)
    (captured,) = [e for e in result.all_events if e.event_type_value == "LOGS_CAPTURED"]
    key = writer.compute_log_manager.build_log_key_for_run(
        result.run_id, captured.logs_captured_data.file_key
    )
    assert reader.is_capture_complete(key)
    data = reader.get_log_data(key)
    assert (data.stdout or b"").decode() == "as many as 5 ÷ 2\n"
    assert b"careful" in (data.stderr or b"")
    told = reader.get_log_metadata(key)
    assert str(told.stdout_location).startswith(f"{bucket}/logs/{result.run_id}/")
    assert told.stdout_download_url == f"/logs/{'/'.join(key)}/out"  # the webserver's own route


def test_a_run_that_goes_on_is_read_so_far(
    writer: dg.DagsterInstance,
    reader: BucketComputeLogManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute_logs, "UPLOAD_SECONDS", 0.05)
    manager = writer.compute_log_manager
    key = ["some-run", "compute_logs", "step"]
    with manager.capture_logs(key):
        print("half of it", flush=True)
        seen = wait_until(lambda: reader.get_log_data(key).stdout)
        assert seen == b"half of it\n"
        assert not reader.is_capture_complete(key)
        print("all of it", flush=True)
    assert reader.get_log_data(key).stdout == b"half of it\nall of it\n"


def test_deleted_logs_are_gone_from_the_bucket(
    writer: dg.DagsterInstance, reader: BucketComputeLogManager
) -> None:
    keys = [["some-run", "compute_logs", step] for step in ("one", "two")]
    for key in keys:
        with writer.compute_log_manager.capture_logs(key):
            print("words", flush=True)
    writer.compute_log_manager.delete_logs(log_key=keys[0])
    assert [reader.cloud_storage_has_logs(key, IO.STDOUT) for key in keys] == [False, True]
    writer.compute_log_manager.delete_logs(prefix=["some-run"])
    assert not reader.cloud_storage_has_logs(keys[1], IO.STDOUT)
