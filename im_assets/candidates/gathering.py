"""All rows of a pool, from its sources and from what landed for them, read into shards.

Rows go from the files to the shards one after the other, so that a pool of any size needs the
memory of one shard; only what a sample takes is held until its source has ended.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from im_assets.candidates.format_registry import NOT_TEXT
from im_assets.candidates.quarantine import quarantine_table, rejected_rows
from im_assets.candidates.reading import Rejected, stream
from im_assets.candidates.shards import EXTRA, ROWS, Shard, Shards
from im_assets.landing.ledger import admitted, source_of, target_source
from im_assets.scoring.registry import columns_read
from im_resources.spooled import write_table
from im_resources.study import DataSource, Study
from im_resources.warehouse import Warehouse


@dataclass(frozen=True)
class Gathered:
    """The rows of a pool as they were read.

    Attributes:
        shards: the rows.
        rejected: files with the rows that could not be used, as rows of the quarantine.
        not_text: what readable rows hold that is left out, since it is no text or nothing learns
            from it: how much of each kind, by source.
        taken: of each source with a ``limit``, how many rows of how many were taken, and how.
    """

    shards: list[Shard]
    rejected: list[Path]
    not_text: dict[str, dict[str, int]]
    taken: dict[str, Any]


def gather(
    targets: Mapping[str, str], study: Study, warehouse: Warehouse, folder: Path, dataset: str
) -> Gathered:
    """Read all sources, in the order of the profile, and then what landed for them.

    What landed comes last: of duplicates, it is the row that is there already that stays.

    Args:
        targets: the source or pool of the profile, by its name in the column ``source``.
        folder: where the shards are written.
        dataset: the asset, as the quarantine names it.

    Raises SourceError as `stream`.
    """
    extra = columns_read(study.scoring)
    sink = _Sink(folder, {name: EXTRA[kind] for name, kind in extra.items()}, dataset)
    taken = {}
    for name, target in targets.items():
        source, before = target_source(study, target), sink.kept
        usable = stream(name, source, sink.keep, sink.reject, extra)
        if source.limit is not None:
            taken[name] = taken_of(source, sink.kept - before, usable)
    for name, target in targets.items():
        for landed in admitted(warehouse, target):
            keep, reject = (
                partial(sink.keep, file=landed.told),
                partial(sink.reject, file=landed.told),
            )
            stream(name, source_of(landed, study), keep, reject, extra)
    return Gathered(sink.shards.close(), sink.close(), _told(sink.not_text), taken)


def taken_of(source: DataSource, rows: int, usable: int | None) -> dict[str, Any]:
    """Of a source with a ``limit``: how many rows of how many were taken, and how."""
    how: dict[str, Any] = {"take": source.take}
    if source.take == "sample":
        how |= {"seed": source.sample_seed}
    return {"rows": rows, "of": usable, "limit": source.limit, **how}


def not_text_of(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """``Gathered.not_text`` of rows in a frame."""
    found: dict[str, Counter[str]] = {}
    if NOT_TEXT in rows:
        for source, kinds in zip(rows["source"], rows[NOT_TEXT], strict=True):
            if isinstance(kinds, dict):
                found.setdefault(str(source), Counter()).update(kinds)
    return _told(found)


def _told(not_text: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {source: dict(kinds.most_common()) for source, kinds in not_text.items()}


class _Sink:
    """Takes rows, and rejected ones, a file's worth of each at a time."""

    def __init__(self, folder: Path, extra: Mapping[str, Any], dataset: str) -> None:
        self.shards = Shards(folder / "rows", extra)
        self.kept = 0  # also of the shard that is being filled
        self.not_text: dict[str, Counter[str]] = {}
        self._folder, self._dataset = folder / "rejected", dataset
        self._folder.mkdir()
        self._waiting: list[Rejected] = []
        self._written: list[Path] = []

    def keep(self, row: dict[str, Any], file: str | None = None) -> None:
        """A row that can be used, read from ``file`` instead where that is given."""
        if kinds := row.get(NOT_TEXT):
            self.not_text.setdefault(row["source"], Counter()).update(kinds)
        self.kept += 1
        self.shards.add(row if file is None else row | {"file": file})

    def reject(self, row: Rejected, file: str | None = None) -> None:
        """A row that cannot be used."""
        self._waiting.append(row if file is None else row._replace(file=file))
        if len(self._waiting) == ROWS:
            self._write()

    def close(self) -> list[Path]:
        """The files with the rejected rows."""
        if self._waiting:
            self._write()
        return self._written

    def _write(self) -> None:
        rows = rejected_rows(pd.DataFrame(self._waiting), self._dataset)
        path = self._folder / f"{len(self._written):06}.parquet"
        self._written.append(write_table(quarantine_table(rows), path))
        self._waiting = []
