"""Adapters as PEFT folders on disk: complete or not there at all.

An adapter is written into a hidden work folder, its manifest last, and published by one rename to
``<root>/<partition>/<fingerprint>/``. What plain ``PeftModel.from_pretrained`` loads is that
folder.
"""

import hashlib
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

MANIFEST = "manifest.json"


class AdapterError(RuntimeError):
    """An adapter that is missing or damaged; says which, and how to get it back."""


@dataclass(frozen=True)
class AdapterStore:
    """The adapters of one study below ``root``."""

    root: Path

    def folder(self, partition: str, fingerprint: str) -> Path:
        """Where the adapter lies (or will). Raises ValueError on a name that leaves the root."""
        for name in (partition, fingerprint):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ValueError(f"{name!r} is not a plain folder name")
        return self.root / partition / fingerprint

    def find(self, partition: str, fingerprint: str) -> dict[str, Any] | None:
        """The manifest of a complete adapter, or None when there is none.

        Raises AdapterError when it was published but its files no longer match the manifest.
        """
        folder = self.folder(partition, fingerprint)
        if not (folder / MANIFEST).is_file():
            return None
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, digest in manifest["files"].items():
            path = folder / name
            if not path.is_file() or _sha256(path) != digest:
                raise AdapterError(
                    f"adapter file {path} does not match its manifest; delete the folder {folder} "
                    f"and materialize finetuned_adapters for {partition} again"
                )
        return manifest

    def latest(self, partition: str) -> tuple[Path, dict[str, Any]]:
        """Folder and manifest of the partition's adapter that was published last.

        Raises AdapterError when the partition has none.
        """
        pointer = self.root / partition / "latest"
        if pointer.is_file():
            fingerprint = pointer.read_text(encoding="utf-8").strip()
            manifest = self.find(partition, fingerprint)
            if manifest is not None:
                return self.folder(partition, fingerprint), manifest
        raise AdapterError(
            f"no finetuned adapter for {partition} in {self.root}; materialize its adapters asset "
            f"for it first"
        )

    def publish(
        self,
        partition: str,
        fingerprint: str,
        save: Callable[[Path], object],
        facts: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write an adapter with ``save(folder)`` and make it visible in one step.

        One that is there already under this fingerprint stays, since others may be reading it.
        Returns the manifest: ``facts``, the fingerprint, and the SHA-256 of every file.
        """
        target = self.folder(partition, fingerprint)
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        try:
            save(work)
            pickled = [p.name for p in work.rglob("*.bin")]
            if pickled:
                raise AdapterError(f"refusing to publish pickled weights: {', '.join(pickled)}")
            paths = sorted(p for p in work.rglob("*") if p.is_file())
            files = {str(p.relative_to(work)): _sha256(p) for p in paths}
            manifest: dict[str, Any] = {**facts, "fingerprint": fingerprint, "files": files}
            text = json.dumps(manifest, indent=1, sort_keys=True)
            (work / MANIFEST).write_text(text, encoding="utf-8")
            try:
                work.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                published = self.find(partition, fingerprint)
                if published is None:  # a leftover without a manifest
                    shutil.rmtree(target)
                    work.rename(target)
                else:
                    manifest = published
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self.point(partition, fingerprint)
        return manifest

    def point(self, partition: str, fingerprint: str) -> None:
        """Make the complete adapter ``fingerprint`` the partition's latest."""
        pointer = self.root / partition / "latest"
        if pointer.is_file() and pointer.read_text(encoding="utf-8") == fingerprint:
            return
        temporary = pointer.with_name(f".latest-{uuid.uuid4().hex}")
        temporary.write_text(fingerprint, encoding="utf-8")
        temporary.replace(pointer)


class AdapterStoreResource(dg.ConfigurableResource[AdapterStore]):
    """Gives assets the adapter store of the study."""

    root: str

    def create_resource(self, context: dg.InitResourceContext) -> AdapterStore:
        return AdapterStore(Path(self.root))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
