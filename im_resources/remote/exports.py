"""What a study writes for people, at a URL too: the rule, selections, the report, datasets.

Each is a folder of its own (``folders.py``), whose versions never mix: a reader takes the folder
that its manifest names.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from im_resources.published import MANIFEST, DamagedFolder, described
from im_resources.remote.folders import RemoteFolders

HOLDS = "holds"  # in a manifest: what kind of export it is


@dataclass(frozen=True)
class Exports:
    """The exports of a study; without ``remote``, they are in its own folder alone."""

    remote: RemoteFolders | None

    def publish(self, path: Path) -> str | None:
        """Publish a file, or a folder, that is complete; the URL of its folder, None without one.

        Its name is that of the file, without what follows the dot. Raises RemoteError.
        """
        if self.remote is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            # As it is now: another run may replace it meanwhile.
            copy = Path(folder, path.name)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy2(path, copy)
            return upload(self.remote, path.stem, copy if path.is_dir() else Path(folder), {})

    def forget(self, *patterns: str) -> list[str]:
        """Erase all exports of such names, with earlier versions of them; their names.

        Raises RemoteError.
        """
        if self.remote is None:
            return []
        names = {path.split("/")[0] for path in self.remote.place.listing()}
        gone = sorted(name for name in names if any(fnmatchcase(name, p) for p in patterns))
        for name in gone:
            self.remote.remove(name)
        return gone


def upload(remote: RemoteFolders, name: str, folder: Path, facts: dict[str, Any]) -> str:
    """Publish a folder in the place of the version before; the URL of its files."""
    manifest = described(folder, facts)
    files = {file: folder / file for file in manifest["files"]}
    remote.publish(name, files, manifest, replacing=True)
    return remote.url(name, manifest)


def written_at(target: str, what: str, write: Callable[[Path], Path]) -> str:
    """Have ``write`` write a folder at ``target``, a URL or a path; where it is then.

    Args:
        what: it is, in words: "a dataset".
        write: takes a folder of this machine, and returns the path in it that is to be shown.

    Raises:
        FileExistsError: the URL holds something else; ``write`` says so of a path.
        RemoteError: it cannot be written.
        Whatever ``write`` raises.
    """
    if "://" not in target:
        return str(write(Path(target)))
    target = target.rstrip("/")
    parent, _, name = target.rpartition("/")
    if parent.endswith((":/", "/")) or not name:
        raise FileExistsError(f"{target} is no folder; give one in it, such as {target}/export")
    with tempfile.TemporaryDirectory() as work:
        remote = RemoteFolders.at(parent, Path(work, "known"))
        _require_ours(remote, name, what)
        folder = Path(work, name)
        shown = write(folder)
        url = upload(remote, name, folder, {HOLDS: what})
        inside = shown.resolve().relative_to(folder.resolve()).as_posix()
        return url if inside == "." else f"{url}/{inside}"


def _require_ours(remote: RemoteFolders, name: str, what: str) -> None:
    url = remote.place.of(name)
    try:
        manifest = remote.manifest(name)
    except DamagedFolder as error:
        raise FileExistsError(f"{error}; choose a folder of its own") from error
    if manifest is not None and manifest.get(HOLDS) != what:
        raise FileExistsError(f"{url} is not of {what}; choose a folder of its own")
    if manifest is None:
        names = sorted({path.split("/")[0] for path in remote.place.listing(name)} - {MANIFEST})
        # Of an upload that was cut off, there are folders named by their content alone.
        foreign = [n for n in names if len(n) != 16 or set(n) - set("0123456789abcdef")]
        if foreign:
            raise FileExistsError(
                f"{url} holds {', '.join(foreign[:5])}, which is not of {what}; choose a folder of "
                "its own"
            )
