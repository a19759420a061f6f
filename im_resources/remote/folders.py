"""Folders at a URL that are complete or not there at all, whatever dies while they are written.

What ``published.py`` is for a disk, where a rename makes a folder visible. An object store has no
such step, but writes one file whole or not at all. So the files go into a folder named by their
content, and the manifest, which names it, is written last:

::

    <url>/<name>/<content>/…       the files
    <url>/<name>/manifest.json     their digests, and which folder is the current one
    <url>/.removed/<name>          it was erased on purpose, and no cache is to bring it back

What has no manifest is not there. Two who write the same name at once never mix their files, and
whoever reads what is being replaced finds the old version or the new.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from im_resources.published import (
    MANIFEST,
    DamagedFolder,
    check_files,
    claimed,
    explained,
    manifest_text,
    parsed_manifest,
    publish,
    read_manifest,
    replace_text,
    sha256,
)
from im_resources.remote.place import Place, same

FOLDER, REMOVED = "folder", ".removed"
READERS = 16  # of small files at once


@dataclass(frozen=True)
class Listed:
    """All that is below a URL: manifests by name, and the names that were erased on purpose."""

    manifests: dict[str, dict[str, Any]]
    removed: frozenset[str]


@dataclass(frozen=True)
class RemoteFolders:
    """The complete folders below ``place``; ``cache``: a folder of this machine for manifests.

    All methods raise RemoteError when the store cannot be reached, or refuses.
    """

    place: Place
    cache: Path

    @classmethod
    def at(cls, url: str, cache: Path) -> "RemoteFolders":
        """Those below ``url``; ``cache`` may serve several."""
        url = url.rstrip("/")
        return cls(Place(url), cache / hashlib.sha256(url.encode()).hexdigest()[:16])

    def patient(self, seconds: float) -> "RemoteFolders":
        """The same, where a store that is down is tried for so long."""
        return replace(self, place=replace(self.place, patience=seconds))

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of a complete folder, or None when there is none.

        Raises DamagedFolder, naming its URL, when it is not one.
        """
        path = f"{name}/{MANIFEST}"
        content = self.place.read(path)
        return None if content is None else _manifest(content, self.place.of(path))

    def listed(self) -> Listed:
        """All manifests, of one listing: one that was read before is not read again.

        Raises DamagedFolder, naming its URL, when one is damaged.
        """
        stamps, removed = {}, set()
        for path, entry in self.place.listing().items():
            name, _, rest = path.partition("/")
            if name == REMOVED:
                removed.add(rest)
            elif rest == MANIFEST:
                stamps[name] = entry.stamp
        known = {name: self._cached(name, stamp) for name, stamp in stamps.items()}
        new = [name for name, manifest in known.items() if manifest is None]
        with ThreadPoolExecutor(READERS) as pool:
            known |= dict(zip(new, pool.map(self.manifest, new), strict=True))
        for name in new:
            text = json.dumps({"stamp": stamps[name], "manifest": known[name]})
            replace_text(self.cache / f"{name}.json", text)
        for old in self.cache.glob("*.json"):
            if old.stem not in known:
                old.unlink(missing_ok=True)
        # One that was erased since it was listed is not there.
        there = {name: known[name] for name in sorted(known)}
        return Listed({name: m for name, m in there.items() if m is not None}, frozenset(removed))

    def publish(
        self, name: str, files: Mapping[str, Path], manifest: Mapping[str, Any], replacing: bool
    ) -> dict[str, Any]:
        """Upload a folder, and make it visible by its manifest; the manifest that is there then.

        What is there already, of an earlier attempt too, is not uploaded again.

        Args:
            files: by the names that ``manifest`` gives the digests of.
            replacing: whether it takes the place of another version; else that one stays.
        """
        try:
            before = self.manifest(name)
        except DamagedFolder:
            if not replacing:
                raise
            before = None
        if before is not None and (not replacing or before["files"] == manifest["files"]):
            return before
        content = content_of(manifest)
        arrived = self.place.listing(f"{name}/{content}")
        for file, digest in manifest["files"].items():
            if file not in arrived or not same(files[file], arrived[file]):
                self.place.put(files[file], f"{name}/{content}/{file}", digest)
        text = manifest_text({**manifest, FOLDER: content})
        self.place.write(f"{name}/{MANIFEST}", text.encode())
        self.place.delete_file(f"{REMOVED}/{name}")
        if before is not None:
            self.place.delete(f"{name}/{content_of(before)}")
        return dict(manifest)

    def fetch(
        self,
        name: str,
        target: Path,
        wait: Callable[[], object] = lambda: None,
        digest: Callable[[Path], str] = sha256,
    ) -> dict[str, Any] | None:
        """Have the folder at ``target``, on this machine; its manifest, or None when there is none.

        Nothing is downloaded where it is there and intact. Else the files are compared with the
        digests, and appear in one step. One process at a time; the others wait, and find it.

        Args:
            wait: called again and again while another process is at it; it may raise.
            digest: the SHA-256 of a file that is there already.

        Raises:
            DamagedFolder: what is at the URL is not what its manifest says; names the first.
            DiskError: the disk is full, or the folder read-only.
        """
        manifest = self.manifest(name)
        if manifest is None or _intact(target, manifest, digest):
            return manifest
        with explained(f"cannot write {target}", target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            with claimed(target.parent / f".lock-{target.name}", wait):
                while manifest is not None and not _intact(target, manifest, digest):
                    try:
                        self._download(name, target, manifest)
                    except DamagedFolder:
                        now = self.manifest(name)
                        if now == manifest:
                            raise
                        manifest = now  # it was replaced meanwhile
        return manifest

    def _download(self, name: str, target: Path, manifest: Mapping[str, Any]) -> None:
        folder = f"{name}/{content_of(manifest)}"
        facts = {key: value for key, value in manifest.items() if key not in ("files", "sizes")}

        def save(work: Path) -> None:
            for file in manifest["files"]:
                path = work / file
                path.parent.mkdir(parents=True, exist_ok=True)
                if not self.place.get(f"{folder}/{file}", path):
                    raise DamagedFolder(f"{self.place.of(f'{folder}/{file}')} is not there")

        def check(arrived: Mapping[str, Any]) -> None:
            for file, digest in manifest["files"].items():
                if arrived["files"][file] != digest:
                    where = self.place.of(f"{folder}/{file}")
                    raise DamagedFolder(f"{where} does not match its manifest")

        work = target.parent / f".fetching-{target.name}"
        publish(target, work, save, lambda: facts, check)

    def was_removed(self, name: str) -> bool:
        """Whether it was erased on purpose, and has not been made again."""
        return self.place.read(f"{REMOVED}/{name}") is not None

    def removed(self) -> list[str]:
        """The names of all that were erased on purpose."""
        return sorted(self.place.listing(REMOVED))

    def remove(self, name: str) -> None:
        """Erase a folder with all versions of it, for all machines: no cache brings it back."""
        self.place.write(f"{REMOVED}/{name}", b"")
        self.place.delete_file(f"{name}/{MANIFEST}")
        self.place.delete(name)
        (self.cache / f"{name}.json").unlink(missing_ok=True)

    def sweep(self) -> None:
        """Erase what no manifest vouches for: uploads that never ended, or end now in vain."""
        stale = []
        vouched = {name: content_of(one) for name, one in self.listed().manifests.items()}
        for path in self.place.listing():
            name, _, rest = path.partition("/")
            if name != REMOVED and rest != MANIFEST and rest.split("/")[0] != vouched.get(name):
                stale.append(path)
        for path in stale:
            self.place.delete_file(path)

    def url(self, name: str, manifest: Mapping[str, Any]) -> str:
        """Where the files of a manifest are."""
        return self.place.of(f"{name}/{content_of(manifest)}")

    def _cached(self, name: str, stamp: str) -> dict[str, Any] | None:
        with suppress(OSError, ValueError):
            found = json.loads((self.cache / f"{name}.json").read_text(encoding="utf-8"))
            if found["stamp"] == stamp and isinstance(found["manifest"], dict):
                return dict(found["manifest"])
        return None


def content_of(manifest: Mapping[str, Any]) -> str:
    """The folder of the files of a manifest: 16 hex digits of the SHA-256 of names and digests."""
    text = json.dumps(manifest["files"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _intact(folder: Path, manifest: Mapping[str, Any], digest: Callable[[Path], str]) -> bool:
    try:
        mine = read_manifest(folder)
        if mine is None or mine["files"] != manifest["files"]:
            return False
        check_files(folder, mine, digest)
    except DamagedFolder:
        return False
    return True


def _manifest(content: bytes, where: str) -> dict[str, Any]:
    """What is written by its names is checked: whoever may write to a bucket may not do so here."""
    manifest = parsed_manifest(content, where)
    for name, digest in manifest["files"].items():
        path = PurePosixPath(name)
        outside = path.is_absolute() or ".." in path.parts or "\\" in name or name in ("", MANIFEST)
        if outside or not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
            raise DamagedFolder(f"{where} is damaged: it names {name!r} with the digest {digest!r}")
    if manifest.pop(FOLDER, None) != content_of(manifest):
        raise DamagedFolder(f"{where} is damaged: it is not of the folder that it names")
    return manifest
