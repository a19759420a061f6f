"""What breaks first as a study grows: at how many rows, sets or weights, and what has to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from im_assets.planning.scale.coefficients import Coefficients, coefficients
from im_assets.planning.scale.machines import TERA, Machine
from im_assets.planning.scale.memory import GIB
from im_assets.planning.scale.models import MINILM_NUMBERS
from im_assets.planning.scale.needs import HOUR, MEASURED_BYTES, MEASURED_ROWS, needs_of
from im_assets.planning.scale.ranges import Range, product, total
from im_assets.planning.scale.totals import ROW_BYTES, Question

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
    return [
        Limit(
            "rows of the pool",
            _until(head_gib * GIB, known["driver_bytes"]),
            f"one process holds something of every row (ids, sketches of near duplicates, ranks "
            f"of the selection), and has {head_gib:g} GiB",
            "sketches and ranks in tables, joined band by band; or take a sample "
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
            _until(DAY, product(known["drawing_seconds"], trials)),
            f"drawing {trials:,} sets hashes every row once a set: a core-day",
            "draw from a sample: a set of thousands needs no pool of billions",
        ),
        Limit(
            "rows of the pool",
            Range.of(disk_tb * TERA / (MINILM_NUMBERS * 4)),
            f"embeddings of all rows, which a selection by KNN-i maps from a local file, fill "
            f"{disk_tb:g} TB",
            "a rule without KNN-i; half-precision or shorter embeddings; an index on disk",
        ),
        Limit(
            "rows of the pool",
            _until(DAY, product(known["commit_seconds"], known["shard_tables"], 1 / shard)),
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
        for c in (each.low, each.high * ROW_BYTES / MEASURED_BYTES)
        for e in (growth.low, growth.high)
    ]
    return Range(min(rows), max(rows))


def _trials(known: Coefficients) -> list[Limit]:
    return [
        Limit(
            "trials",
            known["partitions"],
            "a partition a trial: Dagster's history in SQLite, then its UI",
            "Dagster on Postgres first; then a partition for a group of trials",
        ),
        Limit(
            "trials",
            _until(DAY, product(known["commit_seconds"], known["trial_commits"])),
            "one Postgres catalog, one commit after the other, is busy for a day",
            "one commit for the losses of a group",
        ),
    ]


def _hours(
    question: Question, machine: Machine, count: int, known: Coefficients
) -> tuple[list[Limit], Limit]:
    needs, name = needs_of(question.totals(), machine, count, known=known), question.model
    row = product(needs["scoring"], 1 / question.pool_rows)
    trials = total([needs["finetuning"], needs["evaluation"]])
    trial = product(trials, 1 / question.trials)
    month = Range.of(MONTH * 24 * count)
    rows = [
        Limit(
            "rows of the pool",
            _until(trials, row),
            f"scoring all rows with the {name} takes more than {question.trials:,} finetunes: from "
            "here on it is the bill",
            "score with a smaller model of the family, or a sample; its perplexity is another "
            "indicator, so the rule has to be fitted on it too",
        ),
        Limit(
            "rows of the pool",
            _until(month, row),
            f"scoring all rows with the {name} takes a month on {count} {machine.name}",
            "the same; or first leave out rows by what needs no forward pass (length, MTLD)",
        ),
    ]
    return rows, Limit(
        "trials",
        _until(month, trial),
        f"finetuning and evaluating the {name} takes a month on {count} {machine.name}",
        "more GPUs: trials need nothing of each other; smaller sets; a smaller base of the family",
    )


def _until(room: Range | float | None, each: Range | None) -> Range | None:
    """How many fit; None where it is not known what one takes."""
    return None if room is None or each is None else Range.of(room) / each
