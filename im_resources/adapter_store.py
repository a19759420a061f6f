"""Adapters as folders on disk, known by their content: complete or not there at all.

An adapter is published (``im_resources/published.py``) as ``<root>/<trial>/``, the trial being the
fingerprint of everything that it was trained from. What plain ``PeftModel.from_pretrained`` loads
is that folder. Beside it lie, hidden and only until it is there: ``.lock-<trial>``, the claim of
the process that trains it; ``.writing-<trial>``; and ``.checkpoint-<trial>``.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

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

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# Nobody has gone on with such a checkpoint for so long: its settings or data were changed.
STALE_SECONDS = 14 * 24 * 3600


class AdapterError(RuntimeError):
    """An adapter that is missing or damaged; says which, and how to get it back."""


class Busy(RuntimeError):
    """Another process or thread is training this trial, and the caller did not want to wait."""


@dataclass(frozen=True)
class AdapterStore:
    """The adapters of one study below ``root``."""

    root: Path

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

        Raises AdapterError when it was published but its files no longer match the manifest.
        """
        folder = self.folder(trial)
        if not (folder / MANIFEST).is_file() and not self._adopted(trial):
            return None
        return self._manifest(folder, trial)

    def there(self, trial: str) -> dict[str, Any]:
        """The manifest of an adapter that has to be there. Raises AdapterError when it is not."""
        manifest = self.find(trial)
        if manifest is None:
            raise AdapterError(
                f"the finetune {trial} is not in {self.root}; materialize the adapters asset that "
                "it belongs to again"
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
        the SHA-256 of every file.

        Args:
            wait: called again and again while another writes it, and may end that by raising;
                None: raise Busy at once instead.

        Raises:
            Busy: see ``wait``.
            AdapterError: ``save`` left pickled weights, or what is there already is damaged.
            DiskError: the disk is full, or the folder read-only.
        """
        target = self.folder(trial)

        def checked(work: Path) -> None:
            save(work)
            pickled = [p.name for p in work.rglob("*") if p.suffix in PICKLES]
            if pickled:
                raise AdapterError(f"refusing to publish pickled weights: {', '.join(pickled)}")

        with explained(f"cannot write the finetune {trial} in {self.root}", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with claimed(self.root / f".lock-{trial}", wait) as mine:
                if not mine:
                    raise Busy(f"another process trains {trial}")
                manifest = self.find(trial)
                if manifest is None:
                    manifest = publish(
                        target,
                        self.root / f".writing-{trial}",
                        checked,
                        lambda: {**facts, "fingerprint": trial},
                    )
                shutil.rmtree(self.checkpoints(trial), ignore_errors=True)
        return manifest

    def manifests(self) -> dict[str, dict[str, Any]]:
        """The manifest of each complete adapter, by its trial; no file is compared with it.

        Raises AdapterError when a manifest is damaged.
        """
        folders = (path.parent for path in self.root.glob(f"[!.]*/{MANIFEST}"))
        return {folder.name: self._manifest(folder) or {} for folder in folders}

    def sets(self) -> dict[str, str]:
        """The set that each complete adapter was trained on, by its trial.

        Raises AdapterError when a manifest is damaged.
        """
        return {trial: str(facts.get("set", "")) for trial, facts in self.manifests().items()}

    def remove(self, trial: str) -> None:
        """Erase an adapter, and its checkpoints: for examples that are to be forgotten."""
        for folder in (self.folder(trial), self.checkpoints(trial)):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_checkpoints(self) -> None:
        """Erase all checkpoints: none says what it has seen. Trainings start over."""
        for folder in self.root.glob(".checkpoint-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def clean(self) -> None:
        """Remove what dead processes left behind, and checkpoints that nobody will go on with."""
        kinds = (".writing-", ".checkpoint-", ".lock-")
        for leftover in [path for kind in kinds for path in self.root.glob(f"{kind}*")]:
            kind, _, trial = leftover.name.partition("-")
            # A claim that is given up takes its lock with it.
            with claimed(self.root / f".lock-{trial}", None) as dead:
                if dead and (kind == ".writing" or (kind == ".checkpoint" and self._stale(trial))):
                    shutil.rmtree(leftover, ignore_errors=True)

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
    """Gives assets the adapter store of the study."""

    root: str = Field(description="Folder of the study's adapters")

    def create_resource(self, context: dg.InitResourceContext) -> AdapterStore:
        return AdapterStore(Path(self.root))
