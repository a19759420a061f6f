"""Adapters as folders on disk, known by their content: complete or not there at all.

An adapter is written into a hidden work folder, its manifest last, and published by one rename to
``<root>/<trial>/``, the trial being the fingerprint of everything that it was trained from. What
plain ``PeftModel.from_pretrained`` loads is that folder.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

MANIFEST = "manifest.json"


class AdapterError(RuntimeError):
    """An adapter that is missing or damaged; says which, and how to get it back."""


@dataclass(frozen=True)
class AdapterStore:
    """The adapters of one study below ``root``."""

    root: Path

    def folder(self, trial: str) -> Path:
        """Where the adapter lies (or will). Raises ValueError on a name that leaves the root."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", trial):
            raise ValueError(f"{trial!r} is not a plain folder name")
        return self.root / trial

    def find(self, trial: str) -> dict[str, Any] | None:
        """The manifest of a complete adapter, or None when there is none.

        Raises AdapterError when it was published but its files no longer match the manifest.
        """
        folder = self.folder(trial)
        if not (folder / MANIFEST).is_file() and not self._adopted(trial):
            return None
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, digest in manifest["files"].items():
            path = folder / name
            if not path.is_file() or _sha256(path) != digest:
                raise AdapterError(
                    f"adapter file {path} does not match its manifest; delete the folder {folder} "
                    "and materialize the adapters asset that needs it again"
                )
        return manifest

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
        self, trial: str, save: Callable[[Path], object], facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write an adapter with ``save(folder)`` and make it visible in one step.

        ``save`` may train before it writes, and add to ``facts``, which are read after it.
        One that is there already stays, since others may be reading it. Returns the manifest:
        ``facts``, the trial's fingerprint, and the SHA-256 of every file.
        """
        target = self.folder(trial)
        self.root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.root))
        try:
            save(work)
            pickled = [p.name for p in work.rglob("*.bin")]
            if pickled:
                raise AdapterError(f"refusing to publish pickled weights: {', '.join(pickled)}")
            paths = sorted(p for p in work.rglob("*") if p.is_file())
            files = {str(p.relative_to(work)): _sha256(p) for p in paths}
            manifest: dict[str, Any] = {**facts, "fingerprint": trial, "files": files}
            text = json.dumps(manifest, indent=1, sort_keys=True)
            (work / MANIFEST).write_text(text, encoding="utf-8")
            try:
                work.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                published = self.find(trial)
                if published is None:  # a leftover without a manifest
                    shutil.rmtree(target)
                    work.rename(target)
                else:
                    manifest = published
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return manifest

    def sets(self) -> dict[str, str]:
        """The set that each complete adapter was trained on, by its trial."""
        found = {}
        for path in self.root.glob(f"*/{MANIFEST}"):
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found[path.parent.name] = str(manifest.get("set", ""))
        return found

    def remove(self, trial: str) -> None:
        """Erase an adapter: for examples that are to be forgotten."""
        shutil.rmtree(self.folder(trial), ignore_errors=True)

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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
