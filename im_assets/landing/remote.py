"""A landing folder behind a URL: an object store, or any other file system that fsspec knows.

Only operations on one exact name are used: ``rm``, ``mv`` and ``copy`` of fsspec take a name with
``*`` or ``[`` in it for a pattern.
"""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from fsspec import AbstractFileSystem

from im_assets.landing.folder import REJECTED, Arrival, Changed, Entry, Folder, Kind

# What file systems call that which changes with the content (s3fs, gcsfs, adlfs, sftp, memory, …).
_STAMPS = (
    "ETag", "etag", "md5Hash", "content_md5", "generation", "VersionId", "mtime", "LastModified",
    "last_modified", "updated", "modified", "created", "size",
)  # fmt: skip
_KINDS: dict[str, Kind] = {"file": "file", "directory": "folder", "link": "symbolic link"}


class RemoteFolder(Folder):
    """A folder of a file system of fsspec; ``shown`` is how the profile names it."""

    def __init__(self, file_system: AbstractFileSystem, path: str, shown: str) -> None:
        self.files, self.path, self.shown = file_system, path.rstrip("/"), shown

    def _entries(self, target: str | None) -> Iterator[Entry]:
        place = self.path if target is None else f"{self.path}/{target}"
        self.files.invalidate_cache()
        try:
            found = self.files.ls(place, detail=True)
        except FileNotFoundError:  # an object store has no empty folders
            return
        for info in found:
            path = str(info["name"]).rstrip("/")
            if path != place.strip("/") and path != place:  # some stores list the folder itself
                yield _entry(path.rpartition("/")[2], info)

    @contextmanager
    def _reading(self, arrival: Arrival) -> Iterator[IO[bytes]]:
        self._require_same(arrival)
        try:
            with self.files.open(self._place(arrival.target, arrival.name), "rb") as file:
                yield cast(IO[bytes], file)
        except FileNotFoundError as error:
            raise Changed(arrival.shown) from error
        self._require_same(arrival)

    def _require_same(self, arrival: Arrival) -> None:
        # `ls` as in looking: `info` of some stores gives other fields.
        place = self._place(arrival.target, arrival.name)
        self.files.invalidate_cache()
        found: list[dict[str, Any]] = []
        with suppress(FileNotFoundError):
            found = self.files.ls(place, detail=True)
        for info in found:
            if str(info["name"]).rpartition("/")[2] == arrival.name:
                entry = _entry(arrival.name, info)
                if entry.kind == "file" and entry.stamp == arrival.stamp:
                    return
        raise Changed(arrival.shown)

    def _delete(self, target: str, name: str) -> None:
        with suppress(FileNotFoundError):
            self.files.rm_file(self._place(target, name))

    def _write_reason(self, target: str, name: str, content: bytes) -> None:
        place = f"{self.path}/{REJECTED}/{target}"
        self.files.makedirs(place, exist_ok=True)
        self.files.pipe_file(f"{place}/{name}", content)

    def _move_to_rejected(self, arrival: Arrival, name: str) -> None:
        source = self._place(arrival.target, arrival.name)
        self.files.cp_file(source, f"{self.path}/{REJECTED}/{arrival.target}/{name}")
        self.files.rm_file(source)

    def _place(self, target: str, name: str) -> str:
        return f"{self.path}/{target}/{name}"


def _entry(name: str, info: dict[str, Any]) -> Entry:
    kind = _KINDS.get(str(info.get("type")), "special file")
    if info.get("islink"):
        kind = "symbolic link"
    stamps = [_plain(info[key]) for key in _STAMPS if info.get(key) is not None]
    return Entry(name, kind, int(info.get("size") or 0), "-".join(stamps))


def _plain(value: Any) -> str:
    return str(value.timestamp() if isinstance(value, datetime.datetime) else value)
