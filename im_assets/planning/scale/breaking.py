"""What breaks first as a study grows: at how many rows, sets or weights, and what has to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from im_assets.planning.scale.coefficients import Coefficients, coefficients
from im_assets.planning.scale.machines import Machine
from im_assets.planning.scale.memory import GIB
from im_assets.planning.scale.needs import HOUR, MEASURED_ROWS, needs_of
from im_assets.planning.scale.ranges import Range
from im_assets.planning.scale.totals import Question

DAY = 24 * HOUR
MONTH = 30  # days
Of = Literal["weights of the base", "rows of the pool", "trials"]


@dataclass(frozen=True)
class Limit:
    """One thing that gives way.

    Attributes:
        of: what is counted.
        at: from so many on; None: not measured.
    """

    of: Of
    at: Range | None
    what: str
    change: str


def limits(
    questions: Sequence[Question],
    machine: Machine,
    count: int,
    head_gib: float,
    disk_tb: float,
    shard: int,
    known: Coefficients | None = None,
) -> list[Limit]:
    """All limits, in the order in which they are met, those of one kind together.

    Args:
        questions: a question a base model; trials are those of the first.
        count: machines at the same time.
        head_gib: memory of the machine on which a run's steps are.
        disk_tb: its local disk, in 10¹² bytes.
        shard: examples that are scored as one piece of work.
    """
    known = known or coefficients()
    found = [*_weights(machine, known)]
    rows = [*_rows(questions[0].trials, head_gib, disk_tb, shard, known)]
    trials = [*_trials(known)]
    for question in questions:
        more_rows, more_trials = _hours(question, machine, count, known)
        rows += more_rows
        trials.append(more_trials)
    return [*found, *sorted(rows, key=_first), *sorted(trials, key=_first)]


def _first(limit: Limit) -> float:
    return float("inf") if limit.at is None else limit.at.low


def _weights(machine: Machine, known: Coefficients) -> list[Limit]:
    room = Range(
        machine.memory - known.known("memory_beside").high,
        machine.memory - known.known("memory_beside").low,
    ) * GIB  # fmt: skip
    return [
        Limit(
            "weights of the base",
            room / known.known(f"weight_bytes_{precision}"),
            f"the weights alone fill one {machine.name} in {precision}; activations come on top",
            change,
        )
        for precision, change in (
            ("bf16", "precision: nf4 with gradient checkpointing, or a GPU with more memory"),
            ("nf4", "a base over several GPUs (tensor or pipeline parallel, FSDP), which the "
             "platform does not do"),
        )
    ]  # fmt: skip


def _rows(
    trials: int, head_gib: float, disk_tb: float, shard: int, known: Coefficients
) -> list[Limit]:
    memory, drawing = known["driver_bytes"], known["drawing_seconds"]
    commit, tables = known["commit_seconds"], known["shard_tables"]
    a_row = None if commit is None or tables is None else commit * tables * (1 / shard)
    return [
        Limit(
            "rows of the pool",
            None if memory is None else Range.of(head_gib * GIB) / memory,
            f"one process holds something of every row (ids, sketches of near duplicates, ranks "
            f"of the selection), and has {head_gib:g} GiB",
            "read, deduplicate and rank in shards that stream; or take a sample "
            "(`limit` and `take` of a source)",
        ),
        Limit(
            "rows of the pool",
            _cleaned_in(DAY, known),
            "cleaning in one process takes a day: near duplicates are found in order",
            "shard the sketches by their bands over the nodes, and join what shares a band",
        ),
        Limit(
            "rows of the pool",
            None if drawing is None else Range.of(DAY) / (drawing * trials),
            f"drawing {trials:,} sets hashes every row once a set: a core-day",
            "draw from a sample: a set of thousands needs no pool of billions",
        ),
        Limit(
            "rows of the pool",
            Range.of(disk_tb * 1e12 / (768 * 4)),
            f"embeddings of all rows, which a selection by KNN-i maps from a local file, fill "
            f"{disk_tb:g} TB",
            "a rule without KNN-i; half-precision or shorter embeddings; an index on disk",
        ),
        Limit(
            "rows of the pool",
            None if a_row is None else Range.of(DAY) / a_row,
            f"one Postgres catalog, one commit after the other, is busy for a day with shards of "
            f"{shard:,} rows",
            "larger shards (executor.examples_per_shard): time of the catalog and number of files "
            "fall in proportion",
        ),
    ]


def _cleaned_in(seconds: float, known: Coefficients) -> Range | None:
    each, growth = known["cleaning_seconds"], known["cleaning_growth"]
    if each is None or growth is None:
        return None
    rows = [
        (seconds / c * MEASURED_ROWS ** (e - 1)) ** (1 / e)
        for c in (each.low, each.high)
        for e in (growth.low, growth.high)
    ]
    return Range(min(rows), max(rows))


def _trials(known: Coefficients) -> list[Limit]:
    commit, commits = known["commit_seconds"], known["trial_commits"]
    each = None if commit is None or commits is None else commit * commits
    return [
        Limit(
            "trials",
            known["partitions"],
            "a partition a trial: Dagster's history in SQLite, then its UI",
            "Dagster on Postgres first; then a partition for a group of trials",
        ),
        Limit(
            "trials",
            None if each is None else Range.of(DAY) / each,
            "one Postgres catalog, one commit after the other, is busy for a day",
            "one commit for the losses of a group",
        ),
    ]


def _hours(
    question: Question, machine: Machine, count: int, known: Coefficients
) -> tuple[list[Limit], Limit]:
    needs = needs_of(question.totals(), machine, count, known=known)
    scoring, tuning = needs["scoring"], needs["finetuning"]
    testing = needs["evaluation"]
    assert scoring is not None and tuning is not None and testing is not None  # of known models
    row, trial = scoring * (1 / question.pool_rows), (tuning + testing) * (1 / question.trials)
    month = Range.of(MONTH * 24 * count)
    name = question.model
    rows = [
        Limit(
            "rows of the pool",
            trial * question.trials / row,
            f"scoring all rows with the {name} takes as long as {question.trials:,} finetunes",
            "score with a smaller model of the family, or a sample; score what is selected from "
            "only",
        ),
        Limit(
            "rows of the pool",
            month / row,
            f"scoring all rows with the {name} takes a month on {count} GPUs",
            "the same; or first select by what needs no forward pass (length, MTLD, embeddings)",
        ),
    ]
    return rows, Limit(
        "trials",
        month / trial,
        f"finetuning and evaluating the {name} takes a month on {count} GPUs",
        "more GPUs: trials need nothing of each other; smaller sets, or a smaller base of the "
        "family",
    )
