"""The ledger of the landing: what came of every file, known by its content and its target.

The table ``landed_files`` is written one file at a time, each in a transaction of its own: what it
says is admitted lies in ``<study folder>/landed/`` already, and stays there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from im_assets.candidates.files import SourceError
from im_resources.published import sha256
from im_resources.study import DataSource, Study
from im_resources.warehouse import Warehouse

TABLE = "landed_files"
ADMITTED, REJECTED = "admitted", "rejected"
COLUMNS = {
    "number": ("bigint", "Place in the order of landing, from 1"),
    "landing": ("bigint", "The landing that it came with, from 1"),
    "target": ("text", "Candidate source or unseen pool that it belongs to"),
    "sha256": ("text", "SHA-256 of the file's bytes"),
    "name": ("text", "Name that it landed under; what is not Unicode is escaped"),
    "file": ("text", "Name in the study's folder landed/; '' where rejected"),
    "bytes": ("bigint", "Size of the file"),
    "status": ("text", "admitted or rejected"),
    "reason": ("text", "Why it was rejected; '' where admitted"),
    "rows": ("bigint", "Rows read"),
    "usable": ("bigint", "Rows that the reader could use; cleaning comes later"),
    "unusable_by_kind": ("text", "The other rows, counted by kind, as JSON"),
}


@dataclass(frozen=True)
class LandedFile:
    """One row of the ledger; see COLUMNS."""

    number: int
    landing: int
    target: str
    sha256: str
    name: str
    file: str
    bytes: int
    status: str
    reason: str
    rows: int
    usable: int
    unusable_by_kind: Mapping[str, int]

    @property
    def told(self) -> str:
        """What its rows say of their file: names repeat, and may be a source's own file's too."""
        return f"landed/{self.number}/{self.name}"


def create(warehouse: Warehouse) -> None:
    """Make the table where there is none, so that it can be read before anything has landed."""
    types = {"bigint": "int64", "text": "string"}
    dtypes = {name: types[type_] for name, (type_, _) in COLUMNS.items()}
    empty = pd.DataFrame(columns=list(COLUMNS)).astype(dtypes)
    warehouse.append(TABLE, empty, key=["target", "sha256"])


def entries(warehouse: Warehouse, **where: Any) -> list[LandedFile]:
    """The ledger's rows with these values in these columns, in the order of landing."""
    if not warehouse.has_table(TABLE):
        return []
    rows = warehouse.read_table(TABLE, list(COLUMNS), where).sort_values("number")
    found = ({str(name): value for name, value in row.items()} for row in rows.to_dict("records"))
    return [
        LandedFile(**row | {"unusable_by_kind": json.loads(row["unusable_by_kind"])})
        for row in found
    ]


def admitted(warehouse: Warehouse, target: str) -> list[LandedFile]:
    """The files that were admitted to a candidate source or unseen pool, in that order."""
    return entries(warehouse, target=target, status=ADMITTED)


def record(warehouse: Warehouse, entry: LandedFile) -> None:
    """Write one row, in the place of what the ledger says of the same content and target."""
    row = vars(entry) | {"unusable_by_kind": json.dumps(dict(entry.unusable_by_kind))}
    where = {"target": entry.target, "sha256": entry.sha256}
    warehouse.replace_rows(TABLE, pd.DataFrame([row], columns=list(COLUMNS)), where)


def store_of(study: Study) -> Path:
    """The folder of the admitted files, each named after its content."""
    return study.folder / "landed"


def source_of(entry: LandedFile, study: Study) -> DataSource:
    """How an admitted file is read: like its target, but whole (``limit`` is of the target's own).

    Raises:
        SourceError: the file is gone, or not what was admitted.
    """
    path = store_of(study) / entry.file
    try:
        found = sha256(path)
    except OSError as error:
        raise SourceError(
            f"source {entry.target!r}: the landed file {entry.name!r} cannot be read: {error}; "
            "land it again, or restore the study's folder from a backup"
        ) from error
    if found != entry.file.partition(".")[0]:  # its name says its content
        raise SourceError(
            f"source {entry.target!r}: {path} is damaged: it is no longer the landed file "
            f"{entry.name!r}; land that again, or restore the study's folder from a backup"
        )
    return like(target_source(study, entry.target), path)


def target_source(study: Study, target: str) -> DataSource:
    """The source or pool of the profile with this name. Raises KeyError when there is none."""
    return {**study.data.unseen, **study.data.candidates}[target]


def like(source: DataSource, path: Path) -> DataSource:
    """A local file with the format and fields of a source."""
    own = {"hub": None, "config": None, "revision": None, "limit": None}
    return source.model_copy(update={"path": str(path), **own})
