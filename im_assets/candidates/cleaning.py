"""Decides which rows enter a study: normalizes text, quarantines the rest, each with its reason.

The tests are applied in this order, and the first that holds gives the reason:

1. empty instruction or output; longer than ``max_chars``;
2. leak: the prompt (instruction and input) or the output holds much of a text, prompt or reference
   output, of the evaluation set (``leaks.py``);
3. exact duplicate, then near duplicate, of an earlier row that is kept;
4. withdrawn by its id. It comes last, so that what resembles a withdrawn row stays out with it.

The rows come in shards. Each is looked at by itself (``looking``), what was seen of all is put
together and decided in the order of the rows (``deciding``), and each is written out by itself
(``finishing``): the parts that read texts may be done anywhere and in any order, with one result.
"""

import math
import sys
import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from im_assets.candidates.deciding import Decided, Deciding
from im_assets.candidates.finishing import Fate, finish_all
from im_assets.candidates.format_registry import NOT_TEXT
from im_assets.candidates.languages import LANGUAGE
from im_assets.candidates.leaks import Leaks
from im_assets.candidates.looking import look_at
from im_assets.candidates.quarantine import KEPT_COLUMNS, quarantine, typed
from im_assets.candidates.reading import ROW_COLUMNS
from im_assets.candidates.shards import NUMBER, Shard, shards_of
from im_assets.candidates.tracing import PLACE
from im_assets.common.tracking import work
from im_assets.common.versions import version_of_hashes
from im_resources.spooled import Spooled, write_table
from im_resources.study import CleaningSettings
from im_resources.turns import TURNS
from im_resources.workplace import Task

# Does a task for all items, anywhere and in any order: (key, result) as they finish.
Run = Callable[..., Iterator[tuple[str, Any]]]


def here(task: Task, items: Mapping[str, Any], **common: Any) -> Iterator[tuple[str, Any]]:
    """The task in this process, one item after the other."""
    return task(items, None, **common)


def as_they_are(settings: CleaningSettings) -> CleaningSettings:
    """Settings that leave out no row for its length, or for what it resembles."""
    kept = {"max_chars": sys.maxsize, "near_duplicate_similarity": math.inf}
    return settings.model_copy(update=kept)


@dataclass(frozen=True)
class Cleaned:
    """A pool's rows, cleaned.

    Attributes:
        kept, quarantined: the tables. Kept rows are in the order of the rows; without those that
            the readers could not use, so are the others.
        version: the data version of the kept rows (`version_of_rows`).
        by_source: rows that are kept, by source.
        conversations: those of them that are conversations.
        languages: kept rows by (source, language).
        reasons: quarantined rows by (source, kind).
    """

    kept: Spooled
    quarantined: Spooled
    version: str
    by_source: Counter[str]
    conversations: Counter[str]
    languages: Counter[tuple[str, str]]
    reasons: Counter[tuple[str, str]]


def decide(
    shards: Sequence[Shard],
    settings: CleaningSettings,
    evaluation: pd.DataFrame | None,
    withdrawn: Collection[str],
    scratch: Path,
    run: Run = here,
) -> Decided:
    """What becomes of each row of a pool.

    Args:
        shards: the rows, the sources in order, each in the order of its lines: of duplicates, the
            first row here stays. Of a conversation, all ``turns`` but the system's are its prompt.
        settings: thresholds.
        evaluation: with columns eval_id, instruction, input, output; None skips the leak test.
        withdrawn: example_ids that are left out; their texts do not go into the quarantine.
        scratch: a folder for what is too large for memory, about 100 bytes a row.
        run: how the shards are looked at.
    """
    similarity, leaks = settings.near_duplicate_similarity, None
    if evaluation is not None:
        leaks = Leaks(evaluation, settings.leak_ngram, settings.leak_coverage)
    deciding = Deciding(shards, scratch, similarity, leaks, withdrawn)
    doing = "normalizing" if evaluation is None else "looking for leaks"
    advance, done = work(doing, sum(shard.rows for shard in shards), "rows"), 0
    common = {"max_chars": settings.max_chars, "similarity": similarity, "leaks": leaks}
    for key, seen in run(look_at, {_key(n): shard for n, shard in enumerate(shards)}, **common):
        deciding.take(place := int(key), seen)
        advance(done := done + shards[place].rows)
    return deciding.decide()


def store(
    shards: Sequence[Shard],
    decided: Decided,
    scratch: Path,
    max_chars: int,
    dataset: str = "",
    since: np.ndarray | None = None,
    languages: bool = True,
    rejected: Sequence[Path] = (),
    run: Run = here,
) -> Cleaned:
    """The kept and the quarantined rows as files in a folder.

    Args:
        max_chars: of the longest row.
        dataset: the asset, as the quarantine names it.
        since: of each row that stays, the first version of the pool that holds it, int64.
        languages: whether the language of each is told.
        rejected: files with the rows that the readers could not use, which come first in the
            quarantine.
        run: how the shards are written out.
    """
    fates = _Fates(shards, decided, since)
    for name in ("kept", "dropped"):
        (scratch / name).mkdir()
    advance, done = work("storing", sum(shard.rows for shard in shards), "rows"), 0
    hashes: dict[int, np.ndarray] = {}
    told, reasons = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    columns: list[str] = []
    for path in rejected:
        table = pq.read_table(path, columns=["source", "kind"])
        reasons.update(zip(*(column.to_pylist() for column in table.columns), strict=True))
    common = {
        "dataset": dataset,
        "max_chars": max_chars,
        "turns": bool(decided.talks[decided.stays].any()),
        "languages": languages,
    }
    for key, finished in run(finish_all, fates, **common):
        for name, table in (("kept", finished.kept), ("dropped", finished.dropped)):
            write_table(table, scratch / name / f"{key}.parquet")
        place = int(key)
        hashes[place], columns = finished.hashes, finished.counted
        if languages:
            pairs = (finished.kept.column(c).to_pylist() for c in ("source", LANGUAGE))
            told.update(zip(*pairs, strict=True))
        pairs = (finished.dropped.column(c).to_pylist() for c in ("source", "kind"))
        reasons.update(zip(*pairs, strict=True))
        advance(done := done + shards[place].rows)
    stays = decided.stays
    order = np.argsort(decided.identities[stays])
    ordered = np.concatenate([hashes[place] for place in range(len(shards))])[order]
    dropped = int((~stays).sum())
    return Cleaned(
        Spooled(_files(scratch / "kept"), len(order)),
        Spooled(
            (*rejected, *_files(scratch / "dropped")),
            dropped + sum(pq.read_metadata(path).num_rows for path in rejected),
        ),
        version_of_hashes((columns, ordered)),
        _counts(decided, stays),
        _counts(decided, stays & decided.talks),
        told,
        reasons,
    )


def clean(
    rows: pd.DataFrame,
    rejected: pd.DataFrame,
    settings: CleaningSettings,
    evaluation: pd.DataFrame | None,
    withdrawn: Collection[str] = (),
    sizes: Sequence[int] | None = None,
    run: Run = here,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the rows of a frame, which fit into memory, into those of the study and the others.

    Args:
        rows: as from `read_source`, with ``file`` where it is known, in the order of `decide`.
            Further columns are carried through.
        rejected: rows that the readers could not use; they join the quarantine.
        settings, evaluation, withdrawn: as for `decide`.
        sizes: how many rows are in each shard, which changes no result; default: some thousand.
        run: how shards are worked on.

    Returns:
        (kept, quarantined) with `KEPT_COLUMNS` and the further ones, and `QUARANTINED_COLUMNS`
        (``dataset`` is ''; ``other_…`` is the place of the row that is kept in the row's stead, or
        of the evaluation row that it leaks; own ids of withdrawn rows are left out); every row
        given is in exactly one of them.
    """
    extra = [c for c in rows.columns if c not in (*ROW_COLUMNS, *PLACE, NOT_TEXT)]
    with tempfile.TemporaryDirectory(prefix="cleaning-") as folder:
        scratch = Path(folder)
        given = rows.drop(columns=NOT_TEXT, errors="ignore")
        shards = shards_of(given, scratch / "rows", sizes)
        decided = decide(shards, settings, evaluation, withdrawn, scratch, run)
        found = store(shards, decided, scratch, settings.max_chars, languages=False, run=run)
        kept, dropped = found.kept.frame(), typed(found.quarantined.frame())
    kept = kept[[*KEPT_COLUMNS, *(c for c in extra if c != TURNS or TURNS in kept)]]
    kept = kept.astype({c: rows[c].dtype for c in extra if c in kept})
    return kept, pd.concat([quarantine([], rejected), dropped], ignore_index=True)


class _Fates(Mapping[str, Fate]):
    """What was decided on the rows of each shard, put together when it is asked for."""

    def __init__(self, shards: Sequence[Shard], decided: Decided, since: np.ndarray | None) -> None:
        self._shards, self._decided, self._since = shards, decided, since
        self._before = np.concatenate([[0], np.cumsum(decided.stays)])
        self._leaking = sorted(decided.leaks)

    def __iter__(self) -> Iterator[str]:
        return map(_key, range(len(self._shards)))

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, key: str) -> Fate:
        shard, decided = self._shards[int(key)], self._decided
        first, end = shard.first, shard.first + shard.rows
        identities, places = decided.identities[first:end], None
        if decided.places is not None:
            mine = [(NUMBER, ">=", first), (NUMBER, "<", end)]
            places = pq.read_table(decided.places, filters=mine)
        since = None
        if self._since is not None:
            since = self._since[self._before[first] : self._before[end]]
        found = self._leaking[bisect_left(self._leaking, first) : bisect_left(self._leaking, end)]
        leaks = {number - first: decided.leaks[number] for number in found}
        hidden = np.isin(identities, decided.withdrawn)
        kinds = decided.kinds[first:end]
        return Fate(shard, kinds, identities, leaks, hidden, places, since)


def _key(place: int) -> str:
    return f"{place:06}"


def _counts(decided: Decided, wanted: np.ndarray) -> Counter[str]:
    counts = np.bincount(decided.source[wanted], minlength=len(decided.sources))
    return Counter({name: int(n) for name, n in zip(decided.sources, counts, strict=True) if n})


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.iterdir()))
