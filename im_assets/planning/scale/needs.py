"""What the work of a study takes on given machines: every figure with its ends."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from im_assets.planning.scale.coefficients import Coefficients, coefficients
from im_assets.planning.scale.machines import TERA, Machine
from im_assets.planning.scale.memory import WAYS, Way, trained, way_of
from im_assets.planning.scale.models import MINILM
from im_assets.planning.scale.ranges import Range, product, total
from im_assets.planning.scale.totals import Loads, Totals
from im_resources.language_model.flops import Load, forward_flops, training_flops

HOUR = 3600
GIGA = 1e9
# Of what `cleaning_seconds` was measured: the rows from which on `cleaning_growth` counts, and the
# bytes of one.
MEASURED_ROWS, MEASURED_BYTES = 1e6, 450
SPAN = "time on all GPUs"
_LOCKSTEP = 2  # adapters on one GPU: the fewest from which on it is well used


@dataclass(frozen=True)
class Prices:
    """What is paid, in whatever currency; None: not told.

    Attributes:
        gpu_hour: of one GPU.
        core_hour: of one CPU core.
        tb_month: of 10¹² bytes in the object store.
        months: that they are kept.
        million_requests: of writes to the object store.
    """

    gpu_hour: Range | None = None
    core_hour: Range | None = None
    tb_month: Range | None = None
    months: float = 1
    million_requests: Range | None = None


@dataclass(frozen=True)
class Quantity:
    """A figure of the answer. ``value``: None: not known, and ``why`` says why not."""

    name: str
    unit: str
    value: Range | None
    why: str = ""


@dataclass(frozen=True)
class Needs:
    """The answer to one question.

    Attributes:
        way: how the base is trained on one of the machines.
        figures: by name, in the order in which they are told.
    """

    way: Way
    figures: Mapping[str, Quantity]

    def __getitem__(self, name: str) -> Range | None:
        return self.figures[name].value

    def values(self) -> dict[str, dict[str, str | float | None]]:
        """The figures as JSON values."""
        return {
            name: {
                "unit": figure.unit,
                "low": None if figure.value is None else figure.value.low,
                "high": None if figure.value is None else figure.value.high,
                "why": figure.why,
            }
            for name, figure in self.figures.items()
        }


def needs_of(
    totals: Totals,
    machine: Machine,
    count: int = 1,
    shard: int = 2000,
    prices: Prices | None = None,
    ways: Sequence[tuple[str, bool]] = WAYS,
    known: Coefficients | None = None,
) -> Needs:
    """What the work takes.

    Args:
        count: machines at the same time.
        shard: examples that are scored as one piece of work.
        prices: None: no cost is told.
        ways: precision of the base and gradient checkpointing, of which the first that fits on one
            machine is taken.

    Raises:
        ValueError: ``count`` or ``shard`` below 1.
        FlopsError: a trainer whose operations are not counted.
    """
    for name, value in (("count", count), ("shard", shard)):
        if value < 1:
            raise ValueError(f"{name}: {value}; expected 1 or more")
    known = known or coefficients()
    answer = _Answer(totals.unknown)
    way = way_of(totals.model, machine, totals.settings, totals.batch, known, ways)
    answer.add("memory of a GPU", "GiB", way.memory, "not measured in this precision")
    _compute(answer, totals, machine, way, count, known)
    _rows(answer, totals, known)
    _stored(answer, totals, shard, known)
    if prices is not None:
        _paid(answer, prices, known)
    return Needs(way, answer.figures)


class _Answer:
    def __init__(self, unknown: Mapping[str, str]) -> None:
        self.figures: dict[str, Quantity] = {}
        self._unknown = "; ".join(dict.fromkeys(unknown.values()))

    def add(self, name: str, unit: str, value: Range | None, why: str = "") -> Range | None:
        reason = "" if value is not None else why or self._unknown or "not measured"
        self.figures[name] = Quantity(name, unit, value, reason)
        return value


def _compute(
    answer: _Answer, totals: Totals, machine: Machine, way: Way, count: int, known: Coefficients
) -> None:
    settings = totals.settings.model_copy(update={"gradient_checkpointing": way.checkpointing})
    shape, scorer = totals.model.shape, totals.scorer or totals.model
    weights = totals.model.parameters
    rate = machine.rate("forward", weights, way.precision, known)
    # A scorer that is not the base is small enough for bf16.
    scoring = rate
    if totals.scorer is not None:
        scoring = machine.rate("forward", totals.scorer.parameters, "bf16", known)
    tuned = _span(totals.training, lambda load: training_flops(shape, load, settings))
    tested = _span(totals.evaluation, lambda load: forward_flops(shape, load, settings))
    read = _span(totals.scoring, lambda load: forward_flops(scorer.shape, load))
    embedded = product(totals.embedded, 2 * MINILM)
    training, why = machine.rate("training", weights, way.precision, known), ""
    if way.fits == "no":
        training = rate = None
        scoring = None if totals.scorer is None else scoring
        why = f"does not fit on one {machine.name}"
    parts = [
        answer.add("finetuning", "GPU-h", _hours(tuned, training), why),
        answer.add("evaluation", "GPU-h", _hours(tested, rate), why),
        answer.add("scoring", "GPU-h", _hours(read, scoring), why),
        answer.add("embeddings", "GPU-h", _hours(embedded, machine.embedding(known))),
    ]
    together = answer.add("GPU time together", "GPU-h", total(parts), why)
    # The last round of groups may leave GPUs without work.
    groups = [math.ceil(totals.trials.high / n) for n in (_LOCKSTEP, 1)]
    last = max((math.ceil(n / count) * count / n for n in groups if n), default=1)
    busy = product(together, 1 / count, Range(1, last), _busy(known), 1 / 24)
    start = known.known("run_seconds") * (1 / HOUR / 24)
    answer.add(SPAN, "days", total([busy, start]), why)


def _rows(answer: _Answer, totals: Totals, known: Coefficients) -> None:
    rows = totals.rows
    growth = _growth(rows, known["cleaning_growth"])
    longer = Range(1, max(1, totals.row_bytes.high / MEASURED_BYTES))
    cleaned = product(rows, known["cleaning_seconds"], longer, growth, 1 / HOUR)
    drawn = product(totals.drawn, known["drawing_seconds"], 1 / HOUR)
    selected = product(totals.scored, known["choosing_seconds"], 1 / HOUR)
    answer.add("cleaning", "core-h", cleaned)
    answer.add("drawing the sets", "core-h", drawn)
    answer.add("indicators and selection", "core-h", selected)
    answer.add("core time together", "core-h", total([cleaned, drawn, selected]))
    answer.add("rows in one process's memory", "GB", product(rows, known["driver_bytes"], 1 / GIGA))
    answer.add("writing rows to the lake", "core-h",
               product(rows, known["lake_write_seconds"], 1 / HOUR))  # fmt: skip


def _growth(rows: Range | None, exponent: Range | None) -> Range | None:
    """How many times the seconds of a row are those at MEASURED_ROWS."""
    if rows is None or exponent is None:
        return None
    powers = [
        (n / MEASURED_ROWS) ** (e - 1)
        for n in (rows.low, rows.high)
        for e in (exponent.low, exponent.high)
        if n
    ]
    return Range(min(powers), max(powers)) if powers else Range(1, 1)


def _stored(answer: _Answer, totals: Totals, shard: int, known: Coefficients) -> None:
    scored, trials = totals.scored, totals.trials
    own = 4 * trained(totals.model, totals.settings)  # float32
    texts = product(totals.rows, totals.row_bytes, known["text_share"], 1 / TERA)
    parts = [
        answer.add("texts", "TB", texts),
        # Once in the cache, once in the asset's table.
        answer.add(
            "scores", "TB",
            product(scored, 2 * totals.indicators, known["score_bytes"], 1 / TERA),
        ),
        answer.add(
            "embeddings kept", "TB",
            product(scored, totals.numbers, known["embedding_bytes"], 1 / TERA),
        ),
        answer.add("adapters", "TB", product(trials, own, 1 / TERA)),
        answer.add(
            "losses", "TB", product(trials, 2 * totals.losses, known["loss_bytes"], 1 / TERA)
        ),
    ]  # fmt: skip
    answer.add("storage together", "TB", total(parts))
    answer.add("the base, on each node", "GB", Range.of(2 * totals.model.parameters / GIGA))
    shards = None
    if scored is not None:
        shards = Range(math.ceil(scored.low / shard), math.ceil(scored.high / shard))
    tables = product(shards, known["shard_tables"])
    commits = total([tables, product(trials, known["trial_commits"])])
    answer.add("object store writes", "", total([commits, product(trials, known["adapter_files"])]))
    answer.add("catalog commits", "", commits)
    answer.add("catalog busy", "h", product(commits, known["commit_seconds"], 1 / HOUR))
    answer.add("catalog conflicts", "", product(commits, known["commit_conflicts"]))


def _paid(answer: _Answer, prices: Prices, known: Coefficients) -> None:
    parts: list[Range | None] = []
    for name, of, price, times in (
        # A GPU is paid for while it waits for its next group.
        ("cost of GPUs", "GPU time together", prices.gpu_hour, _busy(known)),
        ("cost of cores", "core time together", prices.core_hour, Range(1, 1)),
        ("cost of storage", "storage together", prices.tb_month, Range.of(prices.months)),
        ("cost of requests", "object store writes", prices.million_requests, Range.of(1e-6)),
    ):
        if price is None:
            answer.add(name, "", None, "no price given")
            continue
        figure = answer.figures[of]
        parts.append(answer.add(name, "", product(figure.value, price, times), figure.why))
    answer.add("cost, of what is priced", "", total(parts))


def _busy(known: Coefficients) -> Range:
    """How many times the work itself takes what it takes with its scheduling."""
    share = known["scheduling_share"]
    return Range(1, 1) if share is None else share + 1


def _span(loads: Loads | None, flops: Callable[[Load], float]) -> Range | None:
    if loads is None:
        return None
    return Range(flops(loads[0]), flops(loads[1]))


def _hours(operations: Range | None, rate: Range | None) -> Range | None:
    if operations is None or rate is None:
        return None
    return operations / rate * (1 / HOUR)
