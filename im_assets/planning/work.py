"""A plan: the work that a run has before it, what of it is there already, and what it takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from im_assets.own_runs import RUNS
from im_resources.study import DataSource, Study

Kind = Literal["reading", "scoring", "training", "evaluating", "other"]
Span = tuple[float, float]  # from, to


@dataclass(frozen=True)
class Work:
    """What one asset has to compute.

    Attributes:
        unit: what is counted, in the plural.
        total: how many there will be; None: nobody knows before the data have been read.
        found: how many of these are there, and are not made again.
        at_most: ``total``, and so what is left, is an upper bound.
        size: of what is left, how many smaller pieces of work there are in it all: passes over an
            example in training, examples in scoring, evaluations.
        tokens: run through the base model for what is left, padding included; None: not known.
        tokens_at_most: ``tokens`` is an upper bound: no example has more than models.max_length.
        seconds: what is left takes, from and to; None: not known.
        disk: bytes that what is left takes; None: not known.
        note: what else there is to say.
    """

    asset: str
    kind: Kind
    unit: str
    total: int | None
    found: int = 0
    at_most: bool = False
    size: int = 0
    tokens: int | None = None
    tokens_at_most: bool = False
    seconds: Span | None = None
    disk: int | None = None
    note: str = ""

    @property
    def left(self) -> int | None:
        """How many are to be computed."""
        return None if self.total is None else max(0, self.total - self.found)


@dataclass(frozen=True)
class Plan:
    """All work of a study.

    Attributes:
        rates: what the times are from, in words, and of which kinds of work.
        missing: why times, or counts, cannot be told.
        unmeasured: whether a probe would tell times that nothing else tells.
        changed: data that a run reads anew and may find to be others, and why.
        free: bytes that are free on the disk of the study's folder.
    """

    study: str
    work: tuple[Work, ...]
    rates: dict[str, list[str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unmeasured: bool = False
    changed: dict[str, str] = field(default_factory=dict)
    free: int = 0

    @property
    def nothing_left(self) -> bool:
        """Whether all that is counted is there."""
        return not self.changed and all(w.left == 0 for w in self.work)

    @property
    def seconds(self) -> Span | None:
        """How long what is left takes, from and to; None where some of it is not known."""
        return total_of([w.seconds for w in self.work if w.left != 0 and w.kind != "reading"])

    @property
    def told_seconds(self) -> Span | None:
        """How long as much of it takes as is known; None where nothing is."""
        known = [w.seconds for w in self.work if w.left and w.seconds is not None]
        return total_of(known) if known else None

    @property
    def disk(self) -> int | None:
        """Bytes that what is left takes; None where some of it is not known."""
        found = [w.disk for w in self.work if w.left != 0 and w.kind != "reading"]
        return None if None in found else sum(n for n in found if n is not None)


def total_of(spans: Sequence[Span | None]) -> Span | None:
    """The sum of spans; None where one is not known."""
    known = [span for span in spans if span is not None]
    if len(known) < len(spans):
        return None
    return sum(low for low, _ in known), sum(high for _, high in known)


def sources_of(study: Study) -> dict[str, list[DataSource]]:
    """The sources that each asset of the data is read from, in the order of a run."""
    data = study.data
    tables = {"evaluation": "eval_set", "second_evaluation": "second_eval_set"}
    found = {tables[name]: [source] for name, source in data.measured.items()}
    found |= {"candidate_datasets": list(data.candidates.values())} if data.candidates else {}
    if study.runs is not None:
        found |= {RUNS: [DataSource(path=study.runs.path)]}
    return found | {f"{pool}_dataset": [source] for pool, source in data.unseen.items()}
