"""The landing folder: ``<folder>/<target>/<file>``, a target being a source or an unseen pool.

What lies in it is what is new: admitted files leave it, and rejected ones are moved to
``<folder>/rejected/``. A name in it is a stranger's and may hold anything: it is used to open the
entry of that name in its own folder, and for nothing else. Only regular files are looked at;
symbolic links, folders, pipes and devices are told of and left alone.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Literal

from im_assets.candidates.unpacking import PACKINGS
from im_resources.study import fingerprint
from im_resources.texts import printable

REJECTED = "rejected"
MARKER = ".done"
REASON = ".reason.txt"
UNFINISHED = (".part", ".tmp", ".crdownload")
CHUNK = 1 << 20
Kind = Literal["file", "folder", "symbolic link", "special file"]


class LandingError(RuntimeError):
    """A landing folder that cannot be used, or a file in it; says which and what would be right."""


class Changed(Exception):
    """A file is no longer what was seen: it is still being written, or was replaced or removed."""


@dataclass(frozen=True)
class Entry:
    """What lies under a name in a folder; ``stamp`` changes when its content does."""

    name: str
    kind: Kind
    size: int = 0
    stamp: str = ""


@dataclass(frozen=True)
class Arrival:
    """A regular file in a target's folder.

    Attributes:
        stamp: size, times and whatever else the file system tells of the content without reading.
        marked: a marker beside it says that it is complete.
    """

    target: str
    name: str
    size: int
    stamp: str
    marked: bool

    @property
    def signature(self) -> str:
        """Stays the same as long as the file does; 16 hex digits, without anything of its name."""
        return fingerprint(self.target, self.name, self.size, self.stamp)

    @property
    def shown(self) -> str:
        """Target and name for people to read."""
        return f"{self.target}/{shown_name(self.name)}"


@dataclass(frozen=True)
class Listing:
    """What lies in a landing folder: arrivals by target and name; and what is left alone, why."""

    arrivals: tuple[Arrival, ...]
    left_alone: dict[str, str]


class Folder(ABC):
    """A landing folder: looking, and taking one file out of it. See the subclasses."""

    def look(self, targets: Collection[str]) -> Listing:
        """What is there for these targets. Raises LandingError when the folder cannot be read."""
        arrivals: list[Arrival] = []
        alone: dict[str, str] = {}
        for entry in self._entries(None):
            name = shown_name(entry.name)
            if entry.kind == "folder" and entry.name in targets:
                own, others = _sorted_out(entry.name, self._entries(entry.name))
                arrivals += own
                alone |= others
            elif entry.kind == "file":
                alone[name] = "lies in no folder of a source or pool"
            elif entry.kind != "folder":
                alone[name] = f"a {entry.kind}"
            elif entry.name != REJECTED and not entry.name.startswith("."):
                alone[name + "/"] = "no source or pool has this name"
        return Listing(tuple(sorted(arrivals, key=lambda a: (a.target, a.name))), alone)

    def fetch(self, arrival: Arrival, to: IO[bytes] | None) -> str:
        """Copy the file's bytes (None: only read them); its SHA-256.

        Raises Changed when it is not, or does not stay, the file that was seen.
        """
        digest, size = hashlib.sha256(), 0
        with self._reading(arrival) as file:
            while size <= arrival.size and (chunk := file.read(CHUNK)):
                digest.update(chunk)
                size += len(chunk)
                if to is not None:
                    to.write(chunk)
        if size != arrival.size:
            raise Changed(arrival.shown)
        return digest.hexdigest()

    def remove(self, arrival: Arrival) -> None:
        """Take an admitted file away. Raises Changed when it is not the one that was seen."""
        self._require_same(arrival)
        if arrival.marked:  # first: alone, it would mark a later upload of the name as complete
            self._delete(arrival.target, arrival.name + MARKER)
        self._delete(arrival.target, arrival.name)

    def reject(self, arrival: Arrival, sha256: str, reason: str) -> str:
        """Move a file to the rejected ones, the reason beside it; its place below the folder.

        The place is the same whenever the same content is rejected. Raises Changed as `remove`.
        """
        self._require_same(arrival)
        name = f"{sha256[:12]}-{_plain_name(arrival.name)}"
        self._write_reason(arrival.target, name + REASON, reason.encode("utf-8", "replace"))
        if arrival.marked:
            self._delete(arrival.target, arrival.name + MARKER)
        self._move_to_rejected(arrival, name)
        return f"{REJECTED}/{arrival.target}/{name}"

    @abstractmethod
    def _entries(self, target: str | None) -> Iterator[Entry]:
        """What is in the folder, or in one of its targets' folders."""

    @abstractmethod
    @contextmanager
    def _reading(self, arrival: Arrival) -> Iterator[IO[bytes]]:
        """The file that was seen, opened; raises Changed at either end when it is another."""

    @abstractmethod
    def _require_same(self, arrival: Arrival) -> None:
        """Raises Changed when the file is not the one that was seen."""

    @abstractmethod
    def _delete(self, target: str, name: str) -> None:
        """Remove a file; nothing when there is none."""

    @abstractmethod
    def _write_reason(self, target: str, name: str, content: bytes) -> None: ...

    @abstractmethod
    def _move_to_rejected(self, arrival: Arrival, name: str) -> None: ...


def _sorted_out(target: str, entries: Iterator[Entry]) -> tuple[list[Arrival], dict[str, str]]:
    """The arrivals in a target's folder, and what is left alone. Unfinished uploads are neither."""
    by_name = {entry.name: entry for entry in entries}
    arrivals: list[Arrival] = []
    alone: dict[str, str] = {}
    for name, entry in by_name.items():
        shown = f"{target}/{shown_name(name)}"
        if entry.kind != "file":
            alone[shown] = f"a {entry.kind}"
        elif name.endswith(MARKER):
            if name.removesuffix(MARKER) not in by_name:
                alone[shown] = "a marker without its file"
        elif not name.startswith(".") and not name.lower().endswith(UNFINISHED):
            marker = by_name.get(name + MARKER)
            marked = marker is not None and marker.kind == "file"
            arrivals.append(Arrival(target, name, entry.size, entry.stamp, marked))
    return arrivals, alone


def shown_name(name: str, width: int = 200) -> str:
    """A file's name for people to read: one line, without anything that is not to be seen."""
    text = printable(name)
    return text if len(text) <= width else text[: width - 1] + "…"


def suffix_of(name: str) -> str:
    """What a file's name says of its format: ``.jsonl``, ``.csv.zst``; '' where nothing fit."""
    suffixes = [s.lower() for s in PurePosixPath(name.replace("/", "_")).suffixes]
    kind = "".join(suffixes[-2:] if suffixes and suffixes[-1] in PACKINGS else suffixes[-1:])
    return kind if re.fullmatch(r"(\.[a-z0-9]{1,10}){1,2}", kind) else ""


def _plain_name(name: str) -> str:
    """The end of a name, which says the format, with nothing that a file system could refuse."""
    return re.sub(r"[^\w.\-]", "_", name, flags=re.ASCII)[-120:]


def open_folder(place: str) -> Folder:
    """The landing folder at a local path or URL, variables not yet expanded.

    Raises:
        LandingError: a URL that fsspec does not know, or whose package is not installed.
        ProfileError: a variable that is not set.
    """
    import fsspec

    from im_assets.landing.local import LocalFolder
    from im_assets.landing.remote import RemoteFolder
    from im_resources.study import expand_variables, resolve_path

    protocol, divider, rest = expand_variables(place).partition("://")
    if not divider:
        return LocalFolder(resolve_path(place), place)
    if protocol in ("file", "local"):
        return LocalFolder(resolve_path(rest), place)
    try:
        file_system: Any
        file_system, path = fsspec.url_to_fs(f"{protocol}://{rest}")
    except (ImportError, ValueError) as error:
        # The error may repeat the URL, with whatever secret a variable holds.
        what = str(error) if isinstance(error, ImportError) else "fsspec knows no such URL"
        raise LandingError(f"landing.folder: {place!r}: {what}") from None
    return RemoteFolder(file_system, path, place)
