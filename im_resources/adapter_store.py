"""Adapters as folders on disk, known by their content: complete or not there at all.

An adapter is published (``im_resources/published.py``) as ``<root>/<trial>/``, the trial being the
fingerprint of everything that it was trained from. What plain ``PeftModel.from_pretrained`` loads
is that folder. Beside it lie, hidden and only until it is there: ``.lock-<trial>``, the claim of
the process that trains it; ``.writing-<trial>``; and ``.checkpoint-<trial>``.

With a remote place, what is there is what counts, and ``root`` is this machine's cache of it: a
trial that is finished is uploaded, and fetched where its files are needed (docs/files.md).
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from im_resources.claims import Claims, FileClaims
from im_resources.published import (
    MANIFEST,
    DamagedFolder,
    check_files,
    claimed,
    explained,
    publish,
    read_manifest,
    sha256,
)
from im_resources.remote import RemoteFolders
from im_resources.study import load_study

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# Nobody has gone on with such a checkpoint for so long: its settings or data were changed.
STALE_SECONDS = 14 * 24 * 3600


class AdapterError(RuntimeError):
    """An adapter that is missing or damaged; says which, and how to get it back."""


class Busy(RuntimeError):
    """Another process or thread is training this trial, and the caller did not want to wait."""


@dataclass(frozen=True)
class AdapterStore:
    """The adapters of one study below ``root``.

    ``remote``: where they are for all machines; None: in ``root`` alone. ``claims``: who trains
    what; default: lock files in ``root``.
    """

    root: Path
    remote: RemoteFolders | None = None
    claims: Claims | None = None

    def folder(self, trial: str) -> Path:
        """Where the adapter lies (or will). Raises ValueError on a name that leaves the root."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", trial):
            raise ValueError(f"{trial!r} is not a plain folder name")
        return self.root / trial

    def checkpoints(self, trial: str) -> Path:
        """The folder of the trial's checkpoints, which is gone once the trial is published."""
        return self.root / f".checkpoint-{self.folder(trial).name}"

    def find(self, trial: str) -> dict[str, Any] | None:
        """The manifest of a complete adapter, or None when there is none.

        Of a remote place the manifest alone is read. One that a process has finished here, and died
        before it was there, is uploaded.

        Raises AdapterError when it was published but its files no longer match the manifest.
        """
        self.folder(trial)
        manifest = self._known(trial)
        if manifest is None and self._finished_here(trial):
            with self._claimed(trial, lambda: None):
                manifest = self._known(trial) or self._send(trial)
        return manifest

    def there(self, trial: str) -> dict[str, Any]:
        """The manifest of an adapter that has to be there, whose files are in its folder then.

        Raises AdapterError when it is not, or is damaged; RemoteError, DiskError when it cannot be
        fetched.
        """
        manifest = self.find(trial)
        if manifest is not None and self.remote is not None:
            manifest = self._fetched(trial, self.remote)
        if manifest is None:
            raise AdapterError(
                f"the finetune {trial} is not in {self._place}; materialize the adapters asset "
                "that it belongs to again"
            )
        return manifest

    def publish(
        self,
        trial: str,
        save: Callable[[Path], object],
        facts: Mapping[str, Any],
        wait: Callable[[], object] | None = lambda: None,
    ) -> dict[str, Any]:
        """Write an adapter with ``save(folder)`` and make it visible in one step.

        ``save`` may train before it writes, and add to ``facts``, which are read after it. It is
        not called for one that is there already, nor is it ever called by two at once: who comes
        second waits, and finds it. Returns the manifest: ``facts``, the trial's fingerprint, and
        the SHA-256 of every file. With a remote place, it is there too; the first one stays.

        Args:
            wait: called again and again while another writes it, and may end that by raising;
                None: raise Busy at once instead.

        Raises:
            Busy: see ``wait``.
            AdapterError: ``save`` left pickled weights, or what is there already is damaged.
            DiskError: the disk is full, or the folder read-only.
            RemoteError: it could not be uploaded. It is kept here, and uploaded when it is next
                asked for.
            ClaimError: the catalog, which holds the claims, cannot be reached.
        """
        target = self.folder(trial)

        def checked(work: Path) -> None:
            save(work)
            pickled = [p.name for p in work.rglob("*") if p.suffix in PICKLES]
            if pickled:
                raise AdapterError(f"refusing to publish pickled weights: {', '.join(pickled)}")

        with explained(f"cannot write the finetune {trial} in {self.root}", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with self._claimed(trial, wait) as mine:
                if not mine:
                    raise Busy(f"another process trains {trial}")
                manifest = self._known(trial)
                if manifest is None:
                    if not self._finished_here(trial):
                        manifest = publish(
                            target,
                            self.root / f".writing-{trial}",
                            checked,
                            lambda: {**facts, "fingerprint": trial},
                        )
                    # The claim may be lost by now, with the catalog that held it, and another may
                    # have trained the same. The same content twice does no harm; of what another
                    # machine has made differently, what is there first stays.
                    if manifest is None or self.remote is not None:
                        manifest = self._send(trial)
                shutil.rmtree(self.checkpoints(trial), ignore_errors=True)
        return manifest

    def manifests(self) -> dict[str, dict[str, Any]]:
        """The manifest of each complete adapter, by its trial; no file is compared with it.

        Of a remote place it is one listing, and what is new in it is read.

        Raises AdapterError when a manifest is damaged.
        """
        folders = (path.parent for path in self.root.glob(f"[!.]*/{MANIFEST}"))
        here = {folder.name: self._manifest(folder) or {} for folder in folders}
        if self.remote is None:
            return here
        with self._told():
            listed = self.remote.listed()
        # Those of here that are not there have yet to be uploaded.
        unsent = {trial: m for trial, m in here.items() if trial not in listed.removed}
        return unsent | listed.manifests

    def sets(self) -> dict[str, str]:
        """The set that each complete adapter was trained on, by its trial.

        Raises AdapterError when a manifest is damaged.
        """
        return {trial: str(facts.get("set", "")) for trial, facts in self.manifests().items()}

    def remove(self, trial: str) -> None:
        """Erase an adapter, and its checkpoints: for examples that are to be forgotten.

        Of a remote place first, so that what dies meanwhile is repeated. The caches of other
        machines drop it when they are next cleaned.
        """
        if self.remote is not None:
            self.remote.remove(trial)
        for folder in (self.folder(trial), self.checkpoints(trial)):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_checkpoints(self) -> None:
        """Erase all checkpoints, and uploads that never ended: none says what it has seen.
        Trainings start over."""
        if self.remote is not None:
            self.remote.sweep()
        for folder in self.root.glob(".checkpoint-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def clean(self) -> None:
        """Remove what dead processes left behind, and checkpoints that nobody will go on with.

        Only on this machine. What was erased for all of them goes here too.
        """
        kinds = (".writing-", ".fetching-", ".checkpoint-", ".lock-")
        for leftover in [path for kind in kinds for path in self.root.glob(f"{kind}*")]:
            kind, _, trial = leftover.name.partition("-")
            # A claim that is given up takes its lock with it.
            with claimed(self.root / f".lock-{trial}", None) as dead:
                unfinished = kind in (".writing", ".fetching")
                if dead and (unfinished or (kind == ".checkpoint" and self._stale(trial))):
                    shutil.rmtree(leftover, ignore_errors=True)
        if self.remote is not None and any(self.root.glob(f"[!.]*/{MANIFEST}")):
            for trial in self.remote.removed():
                if (self.folder(trial) / MANIFEST).is_file() and self._known(trial) is None:
                    self._finished_here(trial)

    @property
    def _place(self) -> str:
        return str(self.root) if self.remote is None else self.remote.place.url

    def _claimed(
        self, trial: str, wait: Callable[[], object] | None
    ) -> AbstractContextManager[bool]:
        self.root.mkdir(parents=True, exist_ok=True)
        return (self.claims or FileClaims(self.root)).claimed(trial, wait)

    def _known(self, trial: str) -> dict[str, Any] | None:
        """The manifest at the place that counts."""
        if self.remote is None:
            folder = self.folder(trial)
            there = (folder / MANIFEST).is_file() or self._adopted(trial)
            return self._manifest(folder, trial) if there else None
        with self._told(trial):
            manifest = self.remote.manifest(trial)
            if manifest is not None:
                where = self.remote.place.of(f"{trial}/{MANIFEST}")
                if manifest.get("fingerprint") != trial:
                    raise DamagedFolder(f"{where} is of another trial")
                if pickled := [n for n in manifest["files"] if Path(n).suffix in PICKLES]:
                    raise DamagedFolder(f"{where} names pickled weights: {', '.join(pickled)}")
        return manifest

    def _finished_here(self, trial: str) -> bool:
        """Whether it is complete here, and may be uploaded: not what was erased for all machines,
        which goes."""
        folder = self.folder(trial)
        if self.remote is None or not ((folder / MANIFEST).is_file() or self._adopted(trial)):
            return False
        if not self.remote.was_removed(trial):
            return True
        shutil.rmtree(folder, ignore_errors=True)
        return False

    def _send(self, trial: str) -> dict[str, Any]:
        """Upload what is complete here; the manifest of what is there then."""
        assert self.remote is not None
        folder = self.folder(trial)
        manifest = self._manifest(folder, trial) or {}
        files = {name: folder / name for name in manifest["files"]}
        with self._told(trial):
            return self.remote.publish(trial, files, manifest, replacing=False)

    def _fetched(self, trial: str, remote: RemoteFolders) -> dict[str, Any] | None:
        with self._told(trial):
            return remote.fetch(trial, self.folder(trial))

    @contextmanager
    def _told(self, trial: str = "") -> Iterator[None]:
        """Damage at the remote place becomes an AdapterError that says how to get out of it."""
        try:
            yield
        except DamagedFolder as error:
            assert self.remote is not None
            folder = f" {self.remote.place.of(trial)}" if trial else ""
            raise AdapterError(
                f"adapter file {error}; delete the folder{folder} there and materialize the "
                "adapters asset that needs it again"
            ) from error

    def _stale(self, trial: str) -> bool:
        age = time.time() - self.checkpoints(trial).stat().st_mtime
        return (self.folder(trial) / MANIFEST).is_file() or age > STALE_SECONDS

    def _manifest(self, folder: Path, trial: str | None = None) -> dict[str, Any] | None:
        """The manifest in ``folder``; with a ``trial``, its files are compared and whose it is."""
        try:
            manifest = read_manifest(folder)
            if manifest is not None and trial is not None:
                check_files(folder, manifest, sha256)
                if manifest.get("fingerprint") != trial:
                    raise DamagedFolder(f"{folder / MANIFEST} is of another trial")
        except DamagedFolder as error:
            raise AdapterError(
                f"adapter file {error}; delete the folder {folder} and materialize the adapters "
                "asset that needs it again"
            ) from error
        return manifest

    def _adopted(self, trial: str) -> bool:
        """Whether an adapter of the layout before (``<root>/<partition>/<trial>``) was moved here.

        What was paid for stays: the fingerprint of a trial has not changed since.
        """
        for old in self.root.glob(f"*/{trial}"):
            if (old / MANIFEST).is_file():
                try:
                    os.rename(old, self.folder(trial))
                except OSError:  # another process was faster
                    break
                return True
        # Another process may also have moved it before this one looked into the old folders.
        return (self.folder(trial) / MANIFEST).is_file()


class AdapterStoreResource(dg.ConfigurableResource[AdapterStore]):
    """Gives assets the adapter store of the study, in the deployment of this process."""

    profile: str = Field(description="Name of a profile, or the path of one")

    def create_resource(self, context: dg.InitResourceContext) -> AdapterStore:
        from im_resources.deployment.making import adapters_of  # which makes these stores

        return adapters_of(load_study(self.profile))
