"""The study's folder ``landed/``: admitted files, each under the hash of its content.

A file gets there by a copy that is complete and on disk before it is renamed, so that a name in the
folder always stands for its whole content, whenever the process or the machine dies.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from im_assets.landing.folder import Arrival, Folder, LandingError, suffix_of
from im_resources.published import sync

INCOMING = "incoming"


class Store:
    """The admitted files. Held by one process at a time: see `turn`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only landing of the study; waits for another, however long that takes.

        What a landing that died was copying is removed.
        """
        incoming = self.root / INCOMING
        incoming.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                for left in incoming.iterdir():
                    left.unlink()
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    @contextmanager
    def copied(self, arrival: Arrival, folder: Folder) -> Iterator[tuple[Path, str]]:
        """A copy of a file, with its suffix, and its SHA-256; gone in the end if not published.

        Raises:
            Changed: the file is still being written, or was replaced.
            LandingError: the copy cannot be written.
        """
        path = self.root / INCOMING / f"{uuid.uuid4().hex}{suffix_of(arrival.name)}"
        try:
            try:
                with path.open("xb") as copy:
                    sha256 = folder.fetch(arrival, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
            except OSError as error:
                raise LandingError(
                    f"{arrival.shown} cannot be copied to {self.root}: {error}; it stays where it "
                    "is, and lands when there is room and permission"
                ) from error
            yield path, sha256
        finally:
            path.unlink(missing_ok=True)

    def publish(self, copy: Path, name: str) -> None:
        """Put a copy in its place, and see that it stays there."""
        os.replace(copy, self.root / name)
        sync(self.root)
