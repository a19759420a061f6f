"""A landing: every complete file is judged, then admitted to its target or rejected.

The order of the steps for one file is what makes it safe to die between any two of them: copied and
on disk; written into the ledger; only then taken out of the landing folder. A file that is still
there is looked at again, and known by its content. So nothing is lost, and nothing admitted twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from im_assets.candidates.reading import SourceError, excerpt_of, read_source
from im_assets.landing.folder import (
    Arrival,
    Changed,
    Folder,
    LandingError,
    shown_name,
    suffix_of,
)
from im_assets.landing.ledger import (
    ADMITTED,
    REJECTED,
    LandedFile,
    entries,
    like,
    record,
    store_of,
    target_source,
)
from im_assets.landing.store import Store
from im_assets.scoring.registry import columns_read
from im_resources.study import LandingSettings, Study
from im_resources.warehouse import Warehouse

EXAMPLES = 10  # rows that cannot be used, told in the reason beside a rejected file


@dataclass(frozen=True)
class Verdict:
    """What a file holds; ``reason`` is empty when it can be admitted, ``examples`` tell more."""

    reason: str = ""
    rows: int = 0
    usable: int = 0
    unusable_by_kind: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()


@dataclass
class Landing:
    """What came of the files of one landing.

    Attributes:
        number: of the landing, from 1.
        entries: the ledger's rows of those that were admitted or rejected.
        known: what had been admitted before: file → the name that it had landed under.
        waiting: files that changed while they were looked at, or are gone.
        stuck: files that could not be copied, or not be taken out of the folder → why.
    """

    number: int
    entries: list[LandedFile] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    stuck: dict[str, str] = field(default_factory=dict)


def land(
    arrivals: Iterable[Arrival], folder: Folder, study: Study, warehouse: Warehouse, told: int
) -> Landing:
    """Admit or reject complete files, one after the other, each for itself.

    Args:
        study: with a landing folder.
        told: the number of the last landing that was told of. A later one in the ledger died before
            it was, and goes on.

    Raises:
        LandingError: no file could be taken, and at least one was there.
    """
    store = Store(store_of(study))
    with store.turn():
        porter = _Porter(folder, study, warehouse, store, told)
        for arrival in arrivals:
            try:
                porter.take(arrival)
            except Changed:
                porter.landing.waiting.append(arrival.shown)
            except (OSError, LandingError) as error:  # it does not keep the others waiting
                porter.landing.stuck[arrival.shown] = str(error)
    landing = porter.landing
    if landing.stuck and not landing.entries and not landing.known:
        raise LandingError("; ".join(f"{name}: {why}" for name, why in landing.stuck.items()))
    return landing


class _Porter:
    """Takes files out of the landing folder, one by one."""

    def __init__(
        self, folder: Folder, study: Study, warehouse: Warehouse, store: Store, told: int
    ) -> None:
        self.folder, self.study, self.warehouse, self.store = folder, study, warehouse, store
        self.ledger = {(e.target, e.sha256): e for e in entries(warehouse)}
        last = max((e.landing for e in self.ledger.values()), default=0)
        self.landing = Landing(last if last > told else last + 1)

    def take(self, arrival: Arrival) -> None:
        """Admit a file, or reject it. Raises Changed, LandingError, OSError."""
        most = settings_of(self.study).max_megabytes
        if arrival.size > most * 1_000_000:
            sha256 = self.folder.fetch(arrival, None)
            size = f"{arrival.size / 1e6:,.0f} MB, and at most {most:,} are read"
            if not self._known(arrival, sha256, None):
                self._reject(arrival, sha256, Verdict(f"{size} (landing.max_megabytes)"))
            return
        with self.store.copied(arrival, self.folder) as (copy, sha256):
            if self._known(arrival, sha256, copy):
                return
            verdict = judge(copy, arrival, self.study)
            if verdict.reason:
                self._reject(arrival, sha256, verdict)
                return
            file = sha256 + suffix_of(arrival.name)
            self.store.publish(copy, file)
            self._record(arrival, sha256, verdict, file)
            self.folder.remove(arrival)

    def _known(self, arrival: Arrival, sha256: str, copy: Path | None) -> bool:
        """Take away what was admitted before; a file of it that was lost comes back."""
        known = self.ledger.get((arrival.target, sha256))
        if known is None or known.status != ADMITTED:
            return False
        if copy is not None and not (self.store.root / known.file).is_file():
            self.store.publish(copy, known.file)
        self.folder.remove(arrival)
        self.landing.known[arrival.shown] = known.name
        return True

    def _reject(self, arrival: Arrival, sha256: str, verdict: Verdict) -> None:
        self._record(arrival, sha256, verdict, "")
        told = [f"{arrival.shown} was not admitted to {arrival.target}:", verdict.reason]
        self.folder.reject(arrival, sha256, "\n".join([*told, *verdict.examples, ""]))

    def _record(self, arrival: Arrival, sha256: str, verdict: Verdict, file: str) -> None:
        """Write the ledger. A file keeps its number when a landing that died goes on."""
        key = (arrival.target, sha256)
        before = self.ledger.get(key)
        if before is not None and before.landing == self.landing.number:
            number = before.number
        else:
            number = max((e.number for e in self.ledger.values()), default=0) + 1
        entry = LandedFile(
            number=number,
            landing=self.landing.number,
            target=arrival.target,
            sha256=sha256,
            name=shown_name(arrival.name),
            file=file,
            bytes=arrival.size,
            status=ADMITTED if file else REJECTED,
            reason=verdict.reason,
            rows=verdict.rows,
            usable=verdict.usable,
            unusable_by_kind=verdict.unusable_by_kind,
        )
        record(self.warehouse, entry)
        self.ledger[key] = entry
        self.landing.entries.append(entry)


def settings_of(study: Study) -> LandingSettings:
    """The profile's landing. Raises LandingError when it names none."""
    if study.landing is None:
        raise LandingError("the profile names no `landing`")
    return study.landing


def judge(copy: Path, arrival: Arrival, study: Study) -> Verdict:
    """Whether a file can be read like the rest of its target, and enough of its rows be used."""
    source = like(target_source(study, arrival.target), copy)
    try:
        rows, rejected = read_source(arrival.target, source, columns_read(study.scoring))
    except (OSError, MemoryError):  # of this machine, not of the file
        raise
    except SourceError as error:
        return Verdict(str(error).replace(str(copy), shown_name(arrival.name)))
    except Exception as error:  # a reader's fault must not keep all later files from landing
        return Verdict(f"reading it failed: {type(error).__name__}: {excerpt_of(str(error))}")
    least = settings_of(study).usable_share
    read, usable = len(rows) + len(rejected), len(rows)
    kinds = {str(k): int(n) for k, n in rejected["kind"].value_counts().sort_index().items()}
    reason = ""
    if not usable or usable / read < least:
        reason = (
            f"{usable:,} of {read:,} rows can be used, and at least "
            f"{100 * least:g} % have to be (landing.usable_share)"
        )
    return Verdict(reason, read, usable, kinds, _examples(rejected))


def _examples(rejected: pd.DataFrame) -> tuple[str, ...]:
    first = rejected.head(EXAMPLES)
    lines = [
        f"line {line}: {excerpt_of(str(why))}: {excerpt_of(str(text))}"
        for line, why, text in zip(first["line"], first["reason"], first["excerpt"], strict=True)
    ]
    more = len(rejected) - len(first)
    return (*lines, f"and {more:,} more") if more else tuple(lines)
