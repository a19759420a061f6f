"""A folder that is replaced as a whole: complete, or as it was."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path


def replace_folder(
    folder: Path,
    ours: Collection[str],
    what: str,
    write: Callable[[Path], None],
    always: Collection[str] = (),
) -> None:
    """Let ``write`` fill a folder beside this one, and put it in place by rename.

    Args:
        ours: names of what such a folder holds.
        what: it is, in words.
        always: those of ``ours`` that are in every such folder. Where names are somebody's choice,
            a folder may hold these alone and be no such folder.

    Raises FileExistsError when the folder holds something else, which nobody asked to delete, or is
    none; OSError for a path that cannot be one.
    """
    try:
        folder = folder.resolve()
        there = folder.exists()
    except (RuntimeError, ValueError) as error:  # a loop of links, a zero byte
        raise OSError(f"{str(folder)!r} cannot be used as a folder: {error}") from error
    if there:
        if not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; choose a folder")
        held = {path.name for path in folder.iterdir()}
        foreign = sorted(held - set(ours))
        if foreign:
            raise FileExistsError(
                f"{folder} holds {', '.join(foreign[:5])}, which is not of {what}; choose a "
                "folder of its own"
            )
        if held and (lacking := sorted(set(always) - held)):
            raise FileExistsError(
                f"{folder} holds {', '.join(sorted(held)[:5])}, but no {lacking[0]}, so that it is "
                f"not {what}; choose a folder of its own"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        new.chmod(0o755)  # mkdtemp's is for its owner alone; this is for readers
        write(new)
        _exchange(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text and see it on the disk."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _exchange(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``; an earlier one is moved out of the way and deleted."""
    if not folder.exists():
        os.rename(new, folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
    os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old)
