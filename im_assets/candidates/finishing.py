"""The last part of cleaning, which each shard does by itself again: the rows as they are stored.

Of a shard and of what was decided on its rows come the rows that stay, with their language where it
is wanted, those of the quarantine with the reason in words, and the hash of each row that the
table's data version is made of.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from im_assets.candidates.content import TEXTS, empty_part, length_of, normalized
from im_assets.candidates.deciding import KINDS
from im_assets.candidates.languages import with_language
from im_assets.candidates.leaks import Leak
from im_assets.candidates.quarantine import (
    KEPT_COLUMNS,
    Reason,
    dropped_row,
    quarantine_table,
)
from im_assets.candidates.shards import NUMBER, SCHEMA, Shard, rows_of
from im_assets.candidates.tracing import PLACE, Place, counted
from im_assets.candidates.versions import SINCE
from im_assets.common.versions import row_hashes
from im_resources.turns import TURNS


@dataclass(frozen=True)
class Fate:
    """What was decided on the rows of a shard.

    Attributes:
        kinds, identities: as in `Decided`, of these rows.
        leaks: what the rows leak that do, by their place in the shard.
        hidden: whether a row's identity is withdrawn, [rows].
        places: of each duplicate in the order of the rows, as in ``Decided.places``.
        since: of each row that stays, the first version of the pool that holds it; None: not told.
    """

    shard: Shard
    kinds: np.ndarray
    identities: np.ndarray
    leaks: Mapping[int, Leak]
    hidden: np.ndarray
    places: pa.Table | None
    since: np.ndarray | None

    @property
    def rows(self) -> int:
        """How many rows the shard has."""
        return self.shard.rows


@dataclass(frozen=True)
class Finished:
    """The rows of a shard as they are stored.

    Attributes:
        kept: the rows that stay.
        dropped: those of the quarantine.
        hashes: of each row that stays, uint64, of the columns ``counted`` (see `version_of_rows`).
    """

    kept: pa.Table
    dropped: pa.Table
    hashes: np.ndarray
    counted: list[str]


def finish(fate: Fate, dataset: str, max_chars: int, turns: bool, languages: bool) -> Finished:
    """Write out what was decided.

    Args:
        dataset: the asset, as the quarantine names it.
        max_chars: of the longest row.
        turns: whether there is a column of them: whether some row that stays is a conversation.
        languages: whether the language of each row that stays is told.
    """
    table = fate.shard.table()
    own = [c for c in table.column_names if c not in (*SCHEMA, NUMBER) and (turns or c != TURNS)]
    twins = iter(rows_of(fate.places)) if fate.places is not None else iter(())
    kept: list[tuple[object, ...]] = []
    dropped: list[tuple[object, ...]] = []
    for place, row in enumerate(rows_of(table)):
        texts, kind = normalized(row, *TEXTS), KINDS[fate.kinds[place]]
        said = [texts[field] for field in TEXTS]
        where, identity = Place.of(row), f"{fate.identities[place]:016x}"
        if not kind:
            row |= {TURNS: texts.get(TURNS)}
            further = where.file, where.own_id, *(row[column] for column in own)
            kept.append((identity, where.source, where.line, *said, row["category"], *further))
            continue
        if fate.hidden[place]:
            where = where._replace(own_id=None)
        twin = next(twins) if kind.endswith("duplicate") else {}
        reason = _reason(kind, texts, identity, fate.leaks.get(place), twin, max_chars)
        dropped.append(dropped_row(where, reason, () if fate.hidden[place] else said, dataset))
    types = {column: table.schema.field(column).type for column in own}
    frame = _frame(kept, types)
    if languages:
        frame = with_language(frame)
    if fate.since is not None:
        frame = frame.assign(**{SINCE: fate.since})
    rows = counted(frame)
    hashes = row_hashes(rows) if len(rows) else np.empty(0, dtype=np.uint64)
    return Finished(
        _stored(frame, types), quarantine_table(dropped), hashes, list(map(str, rows.columns))
    )


def finish_all(
    fates: Mapping[str, Fate], here: object, **common: Any
) -> Iterator[tuple[str, Finished]]:
    """`finish` each of these shards: a task (see ``im_resources.workplace``)."""
    for key in fates:
        yield key, finish(fates[key], **common)


def _reason(
    kind: Any,
    texts: Mapping[str, str],
    identity: str,
    leak: Leak | None,
    twin: Mapping[str, Any],
    max_chars: int,
) -> Reason:
    if kind == "empty":
        return Reason(kind, f"empty {empty_part(texts)}")
    if kind == "too long":
        return Reason(kind, f"too long: {length_of(texts)} characters, max_chars is {max_chars}")
    if kind == "leaks":
        assert leak is not None
        return Reason(kind, str(leak), leak.place)
    if kind == "withdrawn":
        return Reason(kind, f"withdrawn by its id, {identity}")
    first = Place.of(twin)
    other = Place.of({column: twin[f"other_{column}"] for column in PLACE})
    if kind == "near duplicate":
        return Reason(kind, f"near duplicate of {other}", other)
    of_near = f", which is a near duplicate of {other}" if twin["said"] != twin["other"] else ""
    return Reason(kind, f"exact duplicate of {first}{of_near}", other)


def _frame(rows: list[tuple[object, ...]], further: Mapping[str, pa.DataType]) -> pd.DataFrame:
    """The rows with the types that all shards share: a column that is empty here is none of its
    own."""
    frame = pd.DataFrame(rows, columns=[*KEPT_COLUMNS, *further]).astype({"line": "int64"})
    numbers = {c: type_.to_pandas_dtype() for c, type_ in further.items() if not _texts(type_)}
    texts = dict.fromkeys((c for c in frame if c not in ("line", *numbers)), "object")
    return frame.astype({**texts, **numbers})


def _stored(frame: pd.DataFrame, further: Mapping[str, pa.DataType]) -> pa.Table:
    types = SCHEMA | {"example_id": pa.string()} | dict(further)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    fields = [field.with_type(types.get(field.name, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _texts(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)
