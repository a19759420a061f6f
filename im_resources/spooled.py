"""Tables too large for memory: rows in Parquet files, in a scratch folder.

A frame of Python's texts takes several times the bytes of its texts, and all of it at once. What
goes through here is read and written a block at a time, so that the memory of whoever makes a table
does not grow with its rows. The folder goes with the last one who holds its rows.
"""

import shutil
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from im_resources.published import claimed, explained

COMPRESSION = "zstd"


class Scratch:
    """A folder for files of one piece of work, which goes with this object.

    A process that dies leaves it; the next one that makes a scratch folder there removes it.
    """

    def __init__(self, root: Path) -> None:
        """Args:
            root: where the folder is made, such as ``<study folder>/scratch``.

        Raises DiskError when it cannot be.
        """
        self.folder = root / uuid.uuid4().hex
        held = ExitStack()
        with explained(f"cannot write to {root}", root):
            root.mkdir(parents=True, exist_ok=True)
            _remove_left(root)
            held.enter_context(claimed(_lock(self.folder), None))
            self.folder.mkdir()
        self._finalizer = weakref.finalize(self, _remove, self.folder, held)

    def remove(self) -> None:
        """Remove the folder now."""
        self._finalizer()


def _lock(folder: Path) -> Path:
    return folder.with_name(f".lock-{folder.name}")


def _remove(folder: Path, held: ExitStack) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    held.close()


def _remove_left(root: Path) -> None:
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        with claimed(_lock(folder), None) as dead:
            if dead:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Spooled:
    """Rows in Parquet files of one schema, in the order of the files.

    Attributes:
        files: at least one.
        rows: how many there are.
        scratch: whose files they are: kept as long as this is.
    """

    files: tuple[Path, ...]
    rows: int
    scratch: Scratch | None = None

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows, a file at a time."""
        wanted = None if columns is None else list(columns)
        for file in self.files:
            yield pq.read_table(file, columns=wanted)

    def parts(self, size: int) -> Iterator[pa.Table]:
        """The rows, some files at a time: as many as hold ``size`` bytes in memory, and one more
        at most."""
        waiting: list[pa.Table] = []
        for table in self.tables():
            waiting.append(table)
            if sum(part.nbytes for part in waiting) >= size:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    def frame(self) -> pd.DataFrame:
        """All rows in memory."""
        return pa.concat_tables(self.tables()).to_pandas()

    def head(self, rows: int) -> pd.DataFrame:
        """The first rows."""
        found: list[pa.Table] = []
        for table in self.tables():
            found.append(table.slice(0, rows - sum(map(len, found))))
            if sum(map(len, found)) == rows:
                break
        return pa.concat_tables(found).to_pandas()


def write_table(table: pa.Table, path: Path) -> Path:
    """Write a Parquet file; gives its path. Raises DiskError when the disk cannot take it."""
    with explained(f"cannot write {path}", path.parent):
        pq.write_table(table, path, compression=COMPRESSION)
    return path
