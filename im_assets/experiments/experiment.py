"""An experiment: a named, partitioned family of trials, and its partition keys.

Whatever the study asks, it asks by finetuning on sets of examples and measuring: random mixtures,
bins of one indicator, selections, sizes. They differ in how a set is chosen and in nothing else.
Every partition key ends in ``seed-000``, the seed of its finetune.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import dagster as dg
import pandas as pd

from im_assets.common.versions import settings_read
from im_assets.scoring.batch import Models
from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse

# The columns of a gate (see Experiment): whether the experiment is made, and why, or why not.
GOES_ON, WHY = "goes_on", "why"


@dataclass(frozen=True)
class Drawing:
    """What a set is drawn with: the tables that the experiment is made from, and the rest."""

    tables: Mapping[str, pd.DataFrame]
    study: Study
    models: Models
    warehouse: Warehouse


# Yields (partition key, members) for the wanted keys; members have example_id and, if wanted, more
# columns, in the set's order.
Draw = Callable[[Sequence[str], Drawing], Iterator[tuple[str, pd.DataFrame]]]


@dataclass(frozen=True)
class Experiment:
    """A family of trials, one partition each.

    Attributes:
        name: what the profile calls it (``rule.points``).
        noun: what its sets are called, in the plural.
        pool: the asset with the texts of the examples that sets are chosen from.
        scores: the asset with their scores.
        keys: the partition keys; of a series, those that the profile names.
        column: holds the partition key in the experiment's tables.
        group: the assets' group in the catalog, or None: each in that of its kind.
        job: the job that makes them, where it is not called as the group.
        draw: how sets are chosen, from the assets ``made_from``.
        columns: columns of the samples beside those that all experiments have.
        reads: the settings that the drawing reads.
        version: changes when the same input and settings would give other sets.
        content: gives hashes of the files that these settings name, which are read for the drawing.
        rows: what is measured beside losses: answers, verdicts (see measures).
        series: the asset with the partition keys as they are now (seed, version, retired), where
            they grow with the data; ``now`` reads it.
        versions: of a series, the version of the pool that each key's set is drawn from.
        gate: the asset that says whether the experiment is made at all (``goes_on``, ``why``), one
            of those that it is made from; ``now`` reads it. Of one that is not, the assets hold
            nothing (see stopping).
        origin: of a series, what its sets go back to: their data version must not depend on what
            the pool becomes later. Default: the content of what they are made from.
        texts: whether sets are chosen by the texts of the pool, too; else they are not read.
        before: assets that have to be made before its losses are measured.
        names: of the three assets, where they are not ``<name>_samples`` and so on.
    """

    name: str
    noun: str
    pool: str
    scores: str
    keys: tuple[str, ...]
    column: str
    draw: Draw
    made_from: tuple[str, ...]
    description: str
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    version: str = "1"
    group: str | None = None
    job: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    series: str | None = None
    gate: str | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    origin: Callable[[Drawing], str] | None = None
    content: Callable[[Study], list[str]] | None = None
    texts: bool = False
    before: tuple[str, ...] = ()

    def now(self, tables: Mapping[str, pd.DataFrame]) -> "Experiment":
        """The experiment with the partition keys that it has now: itself, if it is no series and
        has no gate.

        Args:
            tables: by the names of their assets, those of ``told_by`` among them. Of a series' own,
                the profile's keys stay, but those retired; further ones follow. Behind a gate that
                is shut there are none.
        """
        if self.gate is not None and not bool(tables[self.gate][GOES_ON].all()):
            return replace(self, keys=())
        if self.series is None:
            return self
        series = tables[self.series]
        retired = set(series.loc[series["retired"], "seed"])
        drawn = series.loc[~series["retired"] & series["refit"], "seed"]
        keys = [key for key in dict.fromkeys((*self.keys, *drawn)) if key not in retired]
        versions = {str(k): int(v) for k, v in zip(series["seed"], series["version"], strict=True)}
        return replace(self, keys=tuple(keys), versions=versions)

    @property
    def told_by(self) -> tuple[str, ...]:
        """The assets that ``now`` reads."""
        return tuple(name for name in (self.series, self.gate) if name is not None)

    def asset(self, kind: str) -> str:
        """The name of the experiment's asset of a kind: samples, adapters, losses, …"""
        return self.names.get(kind, f"{self.names.get('', self.name)}_{kind}")

    @property
    def samples(self) -> str:
        """The asset with the sets' members."""
        return self.asset("samples")

    @property
    def adapters(self) -> str:
        """The asset with what was finetuned on them."""
        return self.asset("adapters")

    @property
    def losses(self) -> str:
        """The asset with the evaluation losses."""
        return self.asset("losses")

    def drawing_id(self, study: Study) -> str:
        """The fingerprint of the settings, and of files they name, that its sets are drawn with."""
        read = settings_read(study, self.reads)
        return fingerprint(self.version, read, *(self.content(study) if self.content else ()))

    @property
    def partitions(self) -> dg.PartitionsDefinition:
        """The partitions of its assets; of a series, the instance holds their keys."""
        if self.series is not None:
            return dg.DynamicPartitionsDefinition(name=self.series)
        return dg.StaticPartitionsDefinition(list(self.keys))


def seed_key(seed: int) -> str:
    """The partition key of a mixture seed: 7 → ``seed-007``."""
    return f"seed-{seed:03d}"


def seed_of(key: str) -> int:
    """The finetune's seed in a partition key. Raises ValueError when it has none."""
    match = re.fullmatch(r"(?:[A-Za-z0-9][A-Za-z0-9_-]*-)?seed-(\d{3,})", key)
    if match is None:
        raise ValueError(f"{key!r} is not a partition key that ends in seed-000")
    return int(match[1])


def bin_key(indicator: str, number: int) -> str:
    """The partition key of a univariate bin: ``ppl-bin-0-seed-000``, 0 being the highest values.

    All bins are finetuned with one seed, so that they differ in their data alone.
    """
    return f"{indicator}-bin-{number}-{seed_key(0)}"


def arm_key(arm: str, size: int, seed: int) -> str:
    """The partition key of a finetune on a selection: ``rule-1000-seed-002``."""
    return f"{arm}-{size}-{seed_key(seed)}"


def some(keys: Sequence[str], most: int = 5) -> str:
    """The first keys as text, and how many more there are."""
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
