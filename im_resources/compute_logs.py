"""What runs printed, in the bucket: written where a run is, read by the webserver elsewhere.

Named in ``dagster.yaml`` of a cluster (deploy/ray/dagster). Dagster has one for each cloud,
with a package of its own each; this one takes any URL that the deployment's files take, a shared
folder included. What it builds on is not public, nor is there a public way to say where these logs
go (its own dagster-aws does the same); tests/resources/test_compute_logs.py fails when it moves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import dagster as dg
from dagster._core.storage.cloud_storage_compute_log_manager import (
    TruncatingCloudStorageComputeLogManager,
)
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.local_compute_log_manager import (
    IO_TYPE_EXTENSION,
    LocalComputeLogManager,
)
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from im_resources.remote import Place

FOLDER = "logs"  # of the bucket
UPLOAD_SECONDS = 20  # how far the page of a run that goes on is behind


class BucketComputeLogManager(
    TruncatingCloudStorageComputeLogManager[dg.DagsterInstance], ConfigurableClass
):
    """Logs below ``<bucket>/logs``, one file a step and stream; of a step that goes on, so far."""

    def __init__(
        self, bucket: str, base_dir: str, inst_data: ConfigurableClassData | None = None
    ) -> None:
        """``base_dir``: a folder of this machine, for what is being written, and for copies."""
        super().__init__()
        self._place = Place(bucket.rstrip("/"))
        self._local = LocalComputeLogManager(base_dir)
        self._inst_data = inst_data

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"bucket": dg.StringSource, "base_dir": dg.StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> "BucketComputeLogManager":
        return cls(inst_data=inst_data, **config_value)

    @property
    def local_manager(self) -> LocalComputeLogManager:
        return self._local

    @property
    def upload_interval(self) -> int:
        return UPLOAD_SECONDS

    def _name(self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False) -> str:
        ending = IO_TYPE_EXTENSION[io_type] + (".partial" if partial else "")
        return "/".join([FOLDER, *log_key]) + f".{ending}"

    def delete_logs(
        self, log_key: Sequence[str] | None = None, prefix: Sequence[str] | None = None
    ) -> None:
        self._local.delete_logs(log_key, prefix)
        if log_key:
            for io_type in ComputeIOType:
                for partial in (False, True):
                    self._place.delete_file(self._name(log_key, io_type, partial))
        elif prefix:
            self._place.delete("/".join([FOLDER, *prefix]))

    def download_url_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> str:
        # The webserver's own, so that a browser needs no way to the bucket.
        return "/".join(["/logs", *log_key, IO_TYPE_EXTENSION[io_type]])

    def display_path_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> str:
        return self._place.of(self._name(log_key, io_type))

    def cloud_storage_has_logs(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> bool:
        folder, _, file = self._name(log_key, io_type, partial).rpartition("/")
        return file in self._place.listing(folder)

    def _upload_file_obj(
        self, data: IO[bytes], log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> None:
        self._place.write(self._name(log_key, io_type, partial), data.read())

    def download_from_cloud_storage(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> None:
        content = self._place.read(self._name(log_key, io_type, partial))
        path = Path(
            self._local.get_captured_local_path(log_key, IO_TYPE_EXTENSION[io_type], partial)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.write_bytes(content or b"")
        new.replace(path)
