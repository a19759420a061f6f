"""A landing folder on this machine. Everything goes through open folders: no link leads outside."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from im_assets.landing.folder import REJECTED, Arrival, Changed, Entry, Folder, Kind, LandingError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a pipe would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalFolder(Folder):
    """A folder of this machine's file systems; ``shown`` is how the profile names it."""

    def __init__(self, path: Path, shown: str) -> None:
        self.path, self.shown = path, shown

    def _entries(self, target: str | None) -> Iterator[Entry]:
        with self._folder(target) as folder:
            for name in os.listdir(folder):
                with suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    yield Entry(name, _kind(found.st_mode), found.st_size, _stamp(found))

    @contextmanager
    def _reading(self, arrival: Arrival) -> Iterator[IO[bytes]]:
        with _told_as_changed(arrival), self._folder(arrival.target) as folder:
            descriptor = os.open(arrival.name, _FILE, dir_fd=folder)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            _require(arrival, os.fstat(descriptor))
            yield file
            _require(arrival, os.fstat(descriptor))

    def _require_same(self, arrival: Arrival) -> None:
        with _told_as_changed(arrival), self._folder(arrival.target) as folder:
            _require(arrival, os.stat(arrival.name, dir_fd=folder, follow_symlinks=False))

    def _delete(self, target: str, name: str) -> None:
        with self._folder(target) as folder, suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)

    def _write_reason(self, target: str, name: str, content: bytes) -> None:
        with (
            self._rejected(target) as folder,
            os.fdopen(os.open(name, _NEW, 0o644, dir_fd=folder), "wb") as file,
        ):
            file.write(content)

    def _move_to_rejected(self, arrival: Arrival, name: str) -> None:
        with (
            _told_as_changed(arrival),
            self._folder(arrival.target) as source,
            self._rejected(arrival.target) as place,
        ):
            os.rename(arrival.name, name, src_dir_fd=source, dst_dir_fd=place)

    @contextmanager
    def _folder(self, target: str | None) -> Iterator[int]:
        """An open target's folder, or the landing folder itself."""
        try:
            top = os.open(self.path, _FOLDER)
        except OSError as error:
            raise LandingError(
                f"landing.folder: {self.shown!r} cannot be read: {error}; make the folder, with "
                "one in it for each source or pool that data lands for"
            ) from error
        with _closing(top):
            if target is None:
                yield top
                return
            with _closing(os.open(target, _FOLDER, dir_fd=top)) as folder:
                yield folder

    @contextmanager
    def _rejected(self, target: str) -> Iterator[int]:
        with (
            self._folder(None) as top,
            _made(REJECTED, top) as rejected,
            _made(target, rejected) as folder,
        ):
            yield folder


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _made(name: str, inside: int) -> Iterator[int]:
    """A folder in an open folder, made if need be, and opened."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=inside)
    with _closing(os.open(name, _FOLDER, dir_fd=inside)) as folder:
        yield folder


@contextmanager
def _told_as_changed(arrival: Arrival) -> Iterator[None]:
    """What is gone, or has become a link, is no longer what was seen."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise
        raise Changed(arrival.shown) from error


def _require(arrival: Arrival, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or _stamp(found) != arrival.stamp:
        raise Changed(arrival.shown)


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "symbolic link" if stat.S_ISLNK(mode) else "special file"


def _stamp(found: os.stat_result) -> str:
    """Inode, size and times in ns; the inode's own time cannot be set back by its user."""
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
