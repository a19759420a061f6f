"""Folders that are complete or not there at all, whatever dies while they are written.

A folder is written aside; once everything in it is on the disk, its manifest with the digests of
all files last, one rename makes it visible. Its writer holds a claim on it, an advisory lock that
the kernel frees when the process dies: two processes never do the same work, and what a dead one
left behind is told from what a live one is writing.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

MANIFEST = "manifest.json"
WAIT_SECONDS = 0.2
# What to do about an operating system's error that another disk or another right would cure.
REMEDIES = {
    errno.ENOSPC: "free some space, or move IM_HOME (or IM_MODEL_CACHE) to a larger disk",
    errno.EDQUOT: "free some space, or have this user's quota raised",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "mount it for writing, or set IM_HOME (or IM_MODEL_CACHE) to another folder",
    errno.EACCES: "give this user the right to write there, or set IM_HOME (or IM_MODEL_CACHE)",
    errno.EPERM: "give this user the right to write there, or set IM_HOME (or IM_MODEL_CACHE)",
    errno.EIO: "check the disk (dmesg, smartctl)",
}
log = logging.getLogger(__name__)


class DamagedFolder(RuntimeError):
    """A published folder whose files are not those of its manifest; names the first that is not."""


class DiskError(OSError):
    """Something could not be written; says what, where, why, and what to do."""


def replace_text(path: Path, text: str) -> None:
    """Write a small file that is there whole or as it was before. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_suffix(f".{os.getpid()}")
    work.write_text(text, encoding="utf-8")
    os.replace(work, path)


@contextmanager
def claimed(lock: Path, wait: Callable[[], object] | None) -> Iterator[bool]:
    """Hold the claim that the file ``lock`` stands for; True once it is held.

    Args:
        wait: called again and again while another process or thread holds it, so that it can end
            the wait by raising; None: do not wait, False at once.
    """
    file = _claim(lock)
    if file is None and wait is not None:
        log.warning("waiting for %s: %s is at it", lock.name.removeprefix(".lock-"), _holder(lock))
        while file is None:
            wait()
            time.sleep(WAIT_SECONDS)
            file = _claim(lock)
    try:
        yield file is not None
    finally:
        if file is not None:
            lock.unlink(missing_ok=True)
            # Closing would not do if a thread of ours has forked a process meanwhile.
            fcntl.flock(file, fcntl.LOCK_UN)
            file.close()


def _claim(lock: Path) -> TextIO | None:
    while True:
        file = lock.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass  # its last holder removed it after we had opened it
        except BaseException:
            file.close()
            raise
        file.close()


def _holder(lock: Path) -> str:
    try:
        return lock.read_text(encoding="utf-8") or "another"
    except FileNotFoundError:
        return "another"


def publish(
    target: Path,
    work: Path,
    save: Callable[[Path], object],
    facts: Callable[[], Mapping[str, Any]],
    check: Callable[[dict[str, Any]], object] = lambda _: None,
) -> dict[str, Any]:
    """Write a folder with ``save(work)`` and make it visible as ``target`` in one step.

    Whoever calls this holds the claim on it. A folder that is there already is replaced. Returns
    the manifest: ``facts()`` once it is saved, and the SHA-256 and size of every file. ``check``
    takes it before the folder is visible, and may raise.

    Raises DiskError when the disk cannot take it; ``target`` is then as it was before.
    """
    old = work.with_name(f"{work.name}.old")
    with explained(f"cannot write {target}", target.parent):
        for leftover in (work, old):
            shutil.rmtree(leftover, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            save(work)
            manifest = described(work, facts())
            check(manifest)
            (work / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
            for path in (*work.rglob("*"), work):
                sync(path)
            if target.exists():
                target.rename(old)
            work.rename(target)
            sync(target.parent)
        finally:
            for leftover in (work, old):
                shutil.rmtree(leftover, ignore_errors=True)
    return manifest


def described(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a folder: ``facts``, and the SHA-256 and size of every file in it."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    names = {str(p.relative_to(folder)): p for p in paths}
    return {
        **facts,
        "files": {name: sha256(path) for name, path in names.items()},
        "sizes": {name: path.stat().st_size for name, path in names.items()},
    }


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as it is written."""
    return json.dumps(manifest, indent=1, sort_keys=True)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a published folder, or None when there is none.

    Raises DamagedFolder when it is not one.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parsed_manifest(content, str(path))


def parsed_manifest(content: bytes, where: str) -> dict[str, Any]:
    """The manifest that the file at ``where`` holds. Raises DamagedFolder when it is not one."""
    try:
        manifest = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFolder(f"{where} is damaged: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise DamagedFolder(f"{where} is damaged: it names no files")
    return manifest


def check_files(
    folder: Path, manifest: Mapping[str, Any], digest: Callable[[Path], str] | None
) -> None:
    """Compare the files with the manifest: their sizes, and by ``digest`` (SHA-256) if given.

    Raises DamagedFolder, naming the first file that is missing or another one.
    """
    sizes = manifest.get("sizes", {})  # manifests of before have none
    for name, expected in manifest["files"].items():
        path = folder / name
        if (
            not path.is_file()
            or path.stat().st_size != sizes.get(name, path.stat().st_size)
            or (digest is not None and digest(path) != expected)
        ):
            raise DamagedFolder(f"{path} does not match its manifest")


def sha256(path: Path) -> str:
    """The file's SHA-256, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before anything that follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(what: str, folder: Path) -> Iterator[None]:
    """Turn a full, read-only or broken disk into a DiskError: ``what``, the cause, and the remedy.

    Errors about other files than those of ``folder`` pass, and so do those of another kind.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        number, place = _errno(error), Path(getattr(error, "filename", None) or folder)
        inside = place.is_relative_to(folder) or folder.is_relative_to(place)
        if number not in REMEDIES or not inside:
            raise
        cause = os.strerror(number)
        raise DiskError(f"{what}: {cause}; {REMEDIES[number]}, and run again") from error


def _errno(error: Exception) -> int:
    """Of the system's error behind ``error``; 0 without. safetensors has it in the text only."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0
