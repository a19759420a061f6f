"""A folder at a URL: whole files written, compared, read, listed and deleted by their exact names.

fsspec's ``rm``, ``cp`` and ``glob`` take a name with ``*`` or ``[`` in it for a pattern, and are
not used. Credentials are what the store's library finds in the environment; none is passed.
"""

import base64
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from im_resources.published import sync
from im_resources.remote.faults import PATIENCE, NotAsSent, RemoteError, tried

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Result = TypeVar("Result")

# Larger files are sent to S3 in parts of this size; what it calls their digest depends on it.
PART = 50 * 2**20
# They have no folders: making one would make a bucket.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}


@dataclass(frozen=True)
class Entry:
    """A file at a store: bytes, what changes with its content, and the MD5 that it gives, if any:
    32 hex digits, of S3's large files with ``-<parts>``."""

    size: int
    stamp: str
    md5: str


@dataclass(frozen=True)
class Place:
    """The folder at ``url``: s3://…, gs://…, file://… or the path of a folder.

    All names are relative to it. ``patience``: seconds for which an error that may pass is tried
    again. Every method raises RemoteError when it cannot be done.
    """

    url: str
    patience: float = PATIENCE

    def of(self, name: str) -> str:
        """The URL of a file or folder in it."""
        return f"{self.url}/{name}" if name else self.url

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when there is none."""

        def read(files: "AbstractFileSystem", path: str) -> bytes:
            return bytes(files.cat_file(path))

        try:
            return self._do("read", name, read)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, which is there whole or as it was before."""

        def write(files: "AbstractFileSystem", path: str) -> None:
            self._made_parent(files, path)
            if not self.local:
                files.pipe_file(path, content)
                return
            work = Path(f"{path}.{os.getpid()}.writing")
            work.write_bytes(content)
            sync(work)
            work.replace(path)

        self._written(name, write)

    def put(self, source: Path, name: str, sha256: str) -> None:
        """Upload a file, and compare what has arrived: by the store's digest, or read back."""

        def put(files: "AbstractFileSystem", path: str) -> None:
            self._made_parent(files, path)
            parts = {"chunksize": PART} if self._protocol in ("s3", "s3a") else {}
            files.put_file(str(source), path, **parts)
            if self.local:
                sync(Path(path))
            arrived = entry_of(files.info(path))
            if arrived.size != source.stat().st_size:
                raise NotAsSent(f"{arrived.size} bytes have arrived of {source.stat().st_size}")
            if not same(source, arrived) and _read_back(files, path) != sha256:
                raise NotAsSent("other bytes have arrived than were sent")

        self._written(name, put)

    def get(self, name: str, target: Path) -> bool:
        """Download a file; whether there is one."""

        def get(files: "AbstractFileSystem", path: str) -> None:
            files.get_file(path, str(target))

        try:
            self._do("read", name, get)
        except FileNotFoundError:
            return False
        return True

    def listing(self, folder: str = "") -> dict[str, Entry]:
        """All files below ``folder``, by their names in it."""

        def find(files: "AbstractFileSystem", path: str) -> dict[str, Entry]:
            files.invalidate_cache()
            start = path.rstrip("/") + "/"
            found = files.find(path, detail=True)
            return {
                name.removeprefix(start): entry_of(info)
                for name, info in found.items()
                if name.startswith(start)
            }

        try:
            return self._do("list", folder, find)
        except FileNotFoundError:
            return {}

    def delete(self, name: str) -> None:
        """Erase a file, or a folder with all that is in it; nothing where there is none."""
        if not name:
            raise ValueError("the whole place is never deleted")
        for one in self.listing(name):
            self.delete_file(f"{name}/{one}")
        if self.local:
            path = Path(self._found()[1], name)
            shutil.rmtree(path, ignore_errors=True)  # empty folders: files are gone

    def delete_file(self, name: str) -> None:
        """Erase one file; nothing where there is none."""

        def delete(files: "AbstractFileSystem", path: str) -> None:
            with suppress(FileNotFoundError):
                files.rm_file(path)

        self._do("delete", name, delete)

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine, or mounted in it."""
        return self._protocol in ("file", "local")

    @property
    def _protocol(self) -> str:
        return self.url.split("://")[0] if "://" in self.url else "file"

    def _written(self, name: str, action: "Callable[[AbstractFileSystem, str], None]") -> None:
        try:
            self._do("write", name, action)
        except FileNotFoundError:
            raise RemoteError(
                f"cannot write {self.of(name)}: there is no such folder; create it, or correct "
                "`files` in the deployment"
            ) from None

    def _do(
        self, verb: str, name: str, action: "Callable[[AbstractFileSystem, str], Result]"
    ) -> Result:
        def act() -> Result:
            files, root = self._found()
            return action(files, f"{root}/{name}" if name else root)

        return tried(f"{verb} {self.of(name)}", act, self.patience)

    def _found(self) -> "tuple[AbstractFileSystem, str]":
        # fsspec keeps one for the process, and makes another in a process that was forked.
        from fsspec.core import url_to_fs

        files, root = url_to_fs(self.url, use_listings_cache=False)
        return files, root.rstrip("/")

    def _made_parent(self, files: "AbstractFileSystem", path: str) -> None:
        if self._protocol not in _OBJECT_STORES:
            files.makedirs(path.rpartition("/")[0], exist_ok=True)


def same(path: Path, entry: Entry) -> bool:
    """Whether the digest that the store gives is this file's. False also where it gives none, or
    one that is not of the content alone, as S3 does of what it encrypts with a key of its own."""
    if not re.fullmatch(r"[0-9a-f]{32}(-\d+)?", entry.md5):
        return False
    parts = []
    with path.open("rb") as file:
        if "-" not in entry.md5:
            return hashlib.file_digest(file, _md5).hexdigest() == entry.md5
        while part := file.read(PART):
            parts.append(_md5(part).digest())
    return f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}" == entry.md5


def _md5(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)


def _read_back(files: "AbstractFileSystem", path: str) -> str:
    digest = hashlib.sha256()
    with files.open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def entry_of(info: dict[str, Any]) -> Entry:
    """A file as fsspec tells of it."""
    md5 = str(info.get("ETag") or "").strip('"')
    if info.get("md5Hash"):  # of GCS
        md5 = base64.b64decode(info["md5Hash"]).hex()
    size = int(info.get("size") or 0)
    changed = info.get("generation") or info.get("mtime") or info.get("LastModified") or ""
    return Entry(size, md5 or f"{size}-{changed}", md5)
