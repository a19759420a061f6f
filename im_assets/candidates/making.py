"""The making of a pool: from its files to the rows that are stored, a shard at a time.

Texts are in files from beginning to end. The process holds arrays of numbers, less than a
hundred bytes a row (``deciding``), and one shard.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.candidates.cleaning import Run, decide, here, store
from im_assets.candidates.deciding import Decided
from im_assets.candidates.finishing import Fate
from im_assets.candidates.gathering import gather
from im_assets.candidates.reading import SourceError
from im_assets.candidates.shards import Shard
from im_assets.candidates.versions import HISTORY, SINCE, UNTIL, Grown, grown
from im_assets.candidates.withdrawn import withdrawn_ids
from im_assets.common.presentation import preview
from im_resources.gpu import GpuResource
from im_resources.spooled import Scratch, Spooled
from im_resources.study import CleaningSettings, Study
from im_resources.tables import qualified
from im_resources.warehouse import Warehouse
from im_resources.workplace import Workplace

QUARANTINE = "quarantined_examples"
PREVIEW = 5  # rows


@dataclass(frozen=True)
class Making:
    """How a pool is made.

    Attributes:
        asset: its name, and its table's.
        settings: of the cleaning.
        versioned: whether the pool has versions (see ``versions``).
    """

    asset: str
    study: Study
    warehouse: Warehouse
    gpu: GpuResource
    settings: CleaningSettings
    versioned: bool = False

    def made(
        self, targets: Mapping[str, str], tables: Mapping[str, pd.DataFrame]
    ) -> tuple[Spooled, dict[str, Any], str]:
        """Reads and cleans the pool, and writes all but its table: that, what the catalog shows,
        and its data version.

        Args:
            targets: as for `gather`.
            tables: the evaluation sets, which nothing may leak.

        Raises SourceError when a source has no usable row.
        """
        scratch = Scratch(self.study.folder / "scratch")
        folder = scratch.folder
        found = gather(targets, self.study, self.warehouse, folder, self.asset)
        run, ids = self._run(found.shards), withdrawn_ids(self.study)
        decided = decide(found.shards, self.settings, _not_to_leak(tables), ids, folder, run)
        history = self._grown(decided, folder) if self.versioned else None
        since = None if history is None else history.since
        most, asset = self.settings.max_chars, self.asset
        cleaned = store(
            found.shards, decided, folder, most, asset, since, rejected=found.rejected, run=run
        )
        # First, so that the reasons can be looked up when the next line raises.
        self.warehouse.replace_from(QUARANTINE, cleaned.quarantined, {"dataset": asset})
        require_usable(asset, targets, cleaned.by_source, cleaned.reasons)
        told = metadata(
            targets,
            cleaned.by_source,
            cleaned.conversations,
            found.not_text,
            cleaned.reasons,
            found.taken,
            cleaned.languages,
        )
        told |= {
            "preview": preview(cleaned.kept.head(PREVIEW)),
            "quarantine_preview": preview(cleaned.quarantined.head(PREVIEW)),
        }
        if history is not None:
            self.warehouse.replace_from(HISTORY, history.history)
            changes = {"added": history.added, "withdrawn": history.withdrawn}
            told |= {"pool version": history.version, **changes}
        return replace(cleaned.kept, scratch=scratch), told, cleaned.version

    def _run(self, shards: Sequence[Shard]) -> Run:
        """How shards are worked on: one alone is done here, whoever has machines for many."""
        if len(shards) == 1:
            return here
        # Each as a piece of work of its own, since it travels with its texts.
        return partial(self.gpu.run, here=Workplace(self.study, self.gpu), weigh=rows_of_shard)

    def _grown(self, decided: Decided, folder: Path) -> Grown:
        """The pool's history; of one from before it had any, its content is the first version."""
        statement = None
        if self.warehouse.has_table(HISTORY):
            columns = f"{SINCE}, {UNTIL} FROM {qualified(HISTORY)}"
            statement = f"SELECT example_id, source, {columns}"
        elif self.warehouse.has_table(self.asset):
            columns = f"1 AS {SINCE}, NULL::BIGINT AS {UNTIL} FROM {qualified(self.asset)}"
            statement = f"SELECT example_id, source, {columns}"
        before = None
        if statement is not None:
            before = self.warehouse.spooled(folder / "history", statement)
        return grown(before, decided.keys(folder / "keys"), folder)


def rows_of_shard(item: Shard | Fate) -> int:
    """How much work a shard is."""
    return item.rows


def _not_to_leak(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame | None:
    """All that nothing in a pool may leak; None where nothing is measured."""
    found = [tables[name] for name in ("eval_set", "second_eval_set") if name in tables]
    return pd.concat(found, ignore_index=True) if len(found) > 1 else next(iter(found), None)


def require_usable(
    asset: str,
    sources: Iterable[str],
    usable: Collection[str],
    reasons: Mapping[tuple[str, str], int],
) -> None:
    """Raises SourceError when the quarantine holds every row of a source.

    Args:
        usable: the sources of the rows that are kept.
        reasons: quarantined rows by (source, kind).
    """
    for source in sources:
        if source not in usable:
            kinds = Counter({k: n for (name, k), n in reasons.items() if name == source})
            raise SourceError(
                f"source {source!r}: none of its {kinds.total()} rows can be used "
                f"{dict(kinds.most_common())}; see table {QUARANTINE} where dataset = '{asset}'"
            )


def metadata(
    sources: Iterable[str],
    kept: Mapping[str, int],
    conversations: Mapping[str, int],
    not_text: Mapping[str, Mapping[str, int]],
    reasons: Mapping[tuple[str, str], int],
    taken: Mapping[str, Any],
    languages: Mapping[tuple[str, str], int] | None = None,
) -> dict[str, Any]:
    """What the catalog shows of cleaned rows.

    Args:
        kept, conversations: rows that are kept, and those of them that are conversations, by
            source.
        not_text, taken: as in `Gathered`.
        reasons: quarantined rows by (source, kind).
        languages: rows that are kept by (source, language); None: not told.
    """
    spoken: dict[str, dict[str, int]] = {}
    for (source, code), count in Counter(languages).most_common():
        spoken.setdefault(source, {})[code] = count
    kinds = Counter[str]()
    for (_, kind), count in reasons.items():
        kinds[kind] += count
    whole: dict[str, Any] = {
        "rows_by_source": {source: kept[source] for source in sources},
        **({"languages_by_source": dict(sorted(spoken.items()))} if spoken else {}),
        "conversations_by_source": dict(Counter(conversations).most_common()),
        "not_text_by_source": not_text,
        "quarantined_by_reason": dict(kinds.most_common()),
        **({"taken_of_sources": taken} if taken else {}),
    }
    counts = {"dagster/row_count": sum(kept.values()), "quarantined": kinds.total()}
    return counts | {name: dg.MetadataValue.json(value) for name, value in whole.items()}
