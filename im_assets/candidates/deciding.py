"""Which rows of a pool stay, decided in the order of the rows from what was seen of each shard.

It is the same however the pool was cut into shards, and in whichever order they were looked at:
what is rare is counted over all of them, the bands of all are joined, and of duplicates the first
row stays. Held in memory are arrays, less than a hundred bytes a row; texts are read again only of
rows whose bands collide, one group after the other, in the order of DuckDB's sort, which goes
through a file where it is large.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from im_assets.candidates.content import TEXTS, normalized
from im_assets.candidates.leaks import Leak, Leaks
from im_assets.candidates.looking import Looked, number_of
from im_assets.candidates.near_duplicates import NearDuplicates, alike
from im_assets.candidates.ngrams import WordHashes
from im_assets.candidates.shards import NUMBER, Shard, rows_of
from im_assets.common.tracking import work
from im_resources.spooled import Spooled, write_table
from im_resources.turns import TURNS, asked, read_turns
from im_resources.warehouse import memory_limit, sql

# The kinds of reasons, by the codes of ``Decided.kinds``, in the order in which they are given.
KINDS = ("", "empty", "too long", "leaks", "exact duplicate", "near duplicate", "withdrawn")
EMPTY, LONG, LEAKS, EXACT, NEAR, WITHDRAWN = range(1, len(KINDS))
_TOGETHER = 20_000  # texts of one index: groups are small, and have nothing to do with each other
_BATCH = 4096
_KEYS = 1 << 20


@dataclass(frozen=True)
class Decided:
    """What becomes of every row.

    Attributes:
        kinds: why it does not stay, by its place in ``KINDS``; 0: it stays, uint8 [rows].
        identities: uint64 [rows].
        sources: the names, of which ``source`` has the place, int32 [rows].
        talks: whether it is a conversation, [rows].
        leaks: what each row leaks that does, by its number.
        withdrawn: the example_ids that are, as numbers, uint64, rising.
        places: a Parquet file in the order of its column ``number``: of each duplicate, the row
            that it is said to resemble, ``said`` with its place (``source``, …), and the one that
            is kept in its stead, ``other`` (``other_source``, …); None where there are none.
    """

    kinds: np.ndarray
    identities: np.ndarray
    sources: tuple[str, ...]
    source: np.ndarray
    talks: np.ndarray
    leaks: dict[int, Leak]
    withdrawn: np.ndarray
    places: Path | None

    @property
    def stays(self) -> np.ndarray:
        """Whether each row stays, [rows]."""
        found: np.ndarray = self.kinds == 0
        return found

    def keys(self, folder: Path) -> Spooled:
        """What the rows that stay are known by, as files: number (from 0), example_id, source."""
        folder.mkdir()
        names, files = pa.array(self.sources, pa.string()), []
        rows = np.flatnonzero(self.kinds == 0)
        for start in range(0, max(1, len(rows)), _KEYS):
            some = rows[start : start + _KEYS]
            ids = [f"{identity:016x}" for identity in self.identities[some].tolist()]
            columns = {
                NUMBER: np.arange(start, start + len(some)),
                "example_id": pa.array(ids, pa.string()),
                "source": names.take(pa.array(self.source[some])),
            }
            files.append(write_table(pa.table(columns), folder / f"{start:012}.parquet"))
        return Spooled(tuple(files), len(rows))


class Deciding:
    """Takes in what was seen of each shard, in any order, and then decides.

    Args:
        shards: all of them, in order.
        scratch: a folder for what is too large for memory.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        scratch: Path,
        similarity: float,
        leaks: Leaks | None,
        withdrawn: Collection[str],
    ) -> None:
        rows = sum(shard.rows for shard in shards)
        self._shards, self._scratch, self._similarity = shards, scratch, similarity
        self._leaks = leaks
        self._withdrawn = np.array(sorted(map(number_of, withdrawn)), dtype=np.uint64)
        self._kinds = np.zeros(rows, dtype=np.uint8)
        self._identities = np.zeros(rows, dtype=np.uint64)
        self._talks, self._banded = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
        self._source, self._sources = np.zeros(rows, dtype=np.int32), dict[str, int]()
        self._counted = None if leaks is None else leaks.nothing()
        self._bands: list[Path] = []

    def take(self, place: int, seen: Looked) -> None:
        """Take in what was seen of the shard at this place."""
        first, count = self._shards[place].first, self._shards[place].rows
        rows = slice(first, first + count)
        # The first of two reasons counts.
        self._kinds[rows] = np.where(seen.empty, EMPTY, np.where(seen.long, LONG, 0))
        self._identities[rows], self._talks[rows] = seen.identities, seen.talks
        codes = [self._sources.setdefault(name, len(self._sources)) for name in seen.sources]
        self._source[rows] = np.array([*codes, 0], dtype=np.int32)[seen.source]
        if self._counted is not None and seen.counted is not None:
            self._counted.add(seen.counted, first)
        self._banded[first + seen.banded] = True
        # Of each band a file with all rows, which is read once: together they are no array to hold.
        self._bands = [self._scratch / f"band-{band}" for band in range(len(seen.bands))]
        for path, band in zip(self._bands, seen.bands, strict=True):
            hashes = np.zeros(count, dtype=np.uint64)
            hashes[seen.banded] = band
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(8 * first)
                file.write(hashes.tobytes())

    def decide(self) -> Decided:
        """What becomes of every row, once all shards were taken in."""
        kinds, leaks = self._kinds, dict[int, Leak]()
        if self._counted is not None and self._leaks is not None:
            found = self._leaks.judge(self._counted)
            leaks = {number: leak for number, leak in found.items() if not kinds[number]}
        kinds[list(leaks)] = LEAKS
        own = np.flatnonzero(kinds == 0)
        copies, firsts_of = _copies(self._identities, own)
        kinds[copies] = EXACT
        near = self._near(np.flatnonzero((kinds == 0) & self._banded))
        kinds[list(near)] = NEAR
        gone = np.isin(self._identities, self._withdrawn) if len(self._withdrawn) else None
        if gone is not None:
            kinds[gone & (kinds == 0)] = WITHDRAWN
        places = self._places(copies, firsts_of, near, gone)
        names = tuple(self._sources)
        return Decided(
            kinds,
            self._identities,
            names,
            self._source,
            self._talks,
            leaks,
            self._withdrawn,
            places,
        )

    def _near(self, rows: np.ndarray) -> dict[int, int]:
        """Of the rows with these numbers, those that resemble an earlier one, and which."""
        bands = (np.fromfile(path, dtype=np.uint64)[rows] for path in self._bands)
        places, groups = alike(bands, len(rows))
        found: dict[int, int] = {}
        done, advance = 0, work("looking for duplicates", len(places), "rows")
        index, hashes, held, group = NearDuplicates(self._similarity), WordHashes(), 0, None
        for row in self._texts(rows[places], groups) if len(places) else ():
            if row["group"] != group and held >= _TOGETHER:
                index, held = NearDuplicates(self._similarity), 0
            group, number, texts = row["group"], row[NUMBER], normalized(row, *TEXTS)
            response = hashes.of(texts["output"])
            words = np.concatenate([hashes.of(asked(texts)), response])
            core = words
            if not read_turns(texts.get(TURNS)):
                core = np.concatenate([hashes.of(texts["instruction"]), response])
            if (first := index.find_or_add(number, words, core)) is not None:
                found[number] = first
            held, done = held + 1, done + 1
            advance(done)
        return found

    def _texts(self, numbers: np.ndarray, groups: np.ndarray) -> Iterator[dict[str, Any]]:
        """The rows with these numbers, group after group, each in the order of the rows."""
        with self._connection() as connection:
            connection.register("alike", pa.table({NUMBER: numbers, "group": groups}))
            statement = sql("alike_rows.sql")
            found = connection.execute(statement, {"files": self._files()})
            for batch in found.to_arrow_reader(_BATCH):
                yield from rows_of(pa.Table.from_batches([batch]))

    def _places(
        self,
        copies: np.ndarray,
        firsts: np.ndarray,
        near: dict[int, int],
        gone: np.ndarray | None,
    ) -> Path | None:
        """Writes ``Decided.places``.

        Args:
            gone: the rows with a withdrawn identity, whose own ids are told nowhere.
        """
        if not len(copies) and not near:
            return None
        numbers = np.concatenate([copies, np.array(list(near), dtype=np.int64)])
        twins = list(near.values())
        # In the stead of a copy of a near duplicate stays what that one resembles.
        others = [near.get(first, first) for first in firsts.tolist()]
        said = np.array([*firsts.tolist(), *twins], dtype=np.int64)
        other = np.array([*others, *twins], dtype=np.int64)
        duplicates = pa.table({NUMBER: numbers, "said": said, "other": other})
        path = self._scratch / "places.parquet"
        with self._connection() as connection:
            connection.register("duplicates", duplicates)
            hidden = np.empty(0, np.int64) if gone is None else np.flatnonzero(gone)
            connection.register("hidden", pa.table({NUMBER: hidden}))
            statement = sql("places_of_duplicates.sql")
            connection.execute(statement, {"files": self._files(), "path": str(path)})
        return path

    def _files(self) -> list[str]:
        return [str(shard.content) for shard in self._shards]

    def _connection(self) -> duckdb.DuckDBPyConnection:
        options = {"memory_limit": f"{memory_limit() >> 20}MiB", "temp_directory": self._scratch}
        return duckdb.connect(config={name: str(value) for name, value in options.items()})


def _copies(identities: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows with these rising numbers, those whose identity an earlier one has, and the
    first that has it."""
    order = np.argsort(identities[rows], kind="stable")
    ordered = identities[rows][order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = order[new][np.cumsum(new) - 1]
    return rows[order[~new]], rows[first[~new]]
