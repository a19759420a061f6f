"""The calculation beside what was really measured: does it lie within the range?

A coefficient that was made from a measurement agrees with it by design; that only shows that the
arithmetic is right. The others are the test.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from im_assets.planning.scale.coefficients import Coefficients, coefficients
from im_assets.planning.scale.machines import CPU, MACHINES
from im_assets.planning.scale.memory import memory_of, trained
from im_assets.planning.scale.models import MINILM_NUMBERS, MODELS, decoder
from im_assets.planning.scale.needs import HOUR, MEASURED_BYTES, SPAN, needs_of
from im_assets.planning.scale.ranges import Range
from im_assets.planning.scale.telling import amount, table
from im_assets.planning.scale.totals import ROW_BYTES, Loads, Question, Totals
from im_resources.language_model.flops import Load, training_flops
from im_resources.study import FinetuningSettings


@dataclass(frozen=True)
class Check:
    """One measurement. ``used``: whether a coefficient was made from it."""

    what: str
    source: str
    unit: str
    measured: float
    calculated: Range
    used: bool
    valid: bool = True

    @property
    def inside(self) -> bool:
        """Whether it lies within the range."""
        return self.measured in self.calculated


def checks(known: Coefficients | None = None) -> list[Check]:
    """All measurements that can be compared."""
    known = known or coefficients()
    return [*_on_gpus(known), *_memory(known), *_on_cpus(known), *_of_data(known)]


def checks_table(found: list[Check]) -> str:
    """All of them, with what they are."""
    rows = [
        [
            check.what,
            f"{check.measured:,g} {check.unit}",
            amount(check.calculated, check.unit),
            ("yes" if check.inside else "**no**") + ("" if check.valid else ", see below"),
            "its coefficient is from it" if check.used else "no coefficient is from it",
            check.source,
        ]
        for check in found
    ]
    return table(["", "measured", "calculated", "inside", "", "source"], rows)


_H200 = "docs/measurements/h200.md"


def _on_gpus(known: Coefficients) -> Iterator[Check]:
    h200 = MACHINES["h200"]
    totals = Question("7b", trials=78, pool_rows=1_000_000).totals()
    for precision, hours in (("bf16", (2.68, 3.66)), ("int8", (4.3, 7.1)), ("nf4", (2.6, 4.3))):
        needs = needs_of(totals, h200, ways=((precision, False),), known=known)
        for each, end in zip(hours, ("fastest", "slowest"), strict=True):
            assert needs["finetuning"] is not None
            what = f"7b, {precision}, the paper's 78 finetunes on one H200, by timed steps, {end}"
            yield Check(what, _H200, "h", each, needs["finetuning"], True)
    needs = needs_of(totals, h200, ways=(("bf16", False),), known=known)
    assert needs["evaluation"] is not None
    yield Check(
        "7b, their evaluation, by 32 of its instructions",
        _H200,
        "min",
        12,
        needs["evaluation"] * 60,
        True,
    )
    others = (("Llama-3 8B", MODELS["8b"], 12473), ("Qwen2.5 7B", _QWEN, 14110))
    for name, model, rate in others:
        long = Load.of_rows([4096], [4096])
        each = training_flops(model.shape, long, FinetuningSettings()) / 4096
        speed = MACHINES["h100"].rate("training", model.parameters, "bf16", known)
        assert speed is not None
        what = f"{name}, LoRA, 4096 tokens, one H100, another engine"
        source = "NeMo AutoModel's published figures"
        yield Check(what, source, "tokens/s", rate, speed / each, False)
    demo = needs_of(_demo(), h200, ways=(("bf16", False),), known=known)[SPAN]
    assert demo is not None
    what = "the demo on an H200, four runs at the same time"
    yield Check(what, _H200, "s", 77, demo * (24 * HOUR), False, valid=False)


_QWEN = decoder("qwen2.5-7b", 28, 3584, 18944, 28, 4, 152064)


def _memory(known: Coefficients) -> Iterator[Check]:
    totals = Question("7b").totals()
    measured = (("bf16", 1, 39), ("bf16", 2, 44), ("bf16", 4, 76), ("bf16", 8, 119),
                ("int8", 4, 123), ("nf4", 1, 27), ("nf4", 8, 113))  # fmt: skip
    for precision, at_once, gib in measured:
        memory = memory_of(totals.model, precision, totals.settings, totals.batch, known, at_once)
        assert memory is not None
        what = f"7b, {precision}, memory with {at_once} at once"
        yield Check(what, _H200, "GiB", gib, memory, True)


def _on_cpus(known: Coefficients) -> Iterator[Check]:
    for what, totals, seconds, source in (
        ("the demo on two cores", _demo(), 161, "measured after its rounds were added"),
        ("real_small on two busy cores", _real_small(), 2970, "the run of docs/studies/real_small"),
    ):
        needs = needs_of(totals, MACHINES[CPU], known=known)
        span, cores = needs[SPAN], needs["core time together"]
        assert span is not None
        assert cores is not None
        yield Check(what, source, "s", seconds, span * (24 * HOUR) + cores * HOUR, False)


def _of_data(known: Coefficients) -> Iterator[Check]:
    scale = "docs/measurements/scale.md"
    for rows, seconds in ((100_000, 24.7), (1_000_000, 237.6), (10_000_000, 2_378.9)):
        totals = replace(
            Question("7b", pool_rows=rows).totals(), row_bytes=Range.of(MEASURED_BYTES)
        )
        cleaned = needs_of(totals, MACHINES["h100"], known=known)["cleaning"]
        if cleaned is not None:
            used = rows == 1_000_000
            yield Check(f"cleaning {rows:,} rows", scale, "core s", seconds, cleaned * HOUR, used)
    own = Range.of(4e-3 * trained(MODELS["135m"], FinetuningSettings()))
    header = Range(0, 20)  # of the file: the names of its tensors
    what = "file of an adapter of SmolLM2-135M"
    yield Check(what, "a finetune of real_small", "kB", 1_859, own + header, False)


def _small(trials: Range, passes: float, row: Range, tokens: Range, instructions: int,
           outputs: int, said: float, scored: int, texts: Range, rows: int) -> Totals:  # fmt: skip
    """A study of SmolLM2-135M.

    Args:
        passes: over an example, of one finetune.
        row: tokens of a row.
        tokens: of one evaluated instruction with its outputs.
        said: response tokens of a row, at most.
        texts: tokens of a row for the sentence embeddings.
    """

    def loads(each: Range, count: Range) -> Loads:
        low = Load.of_rows([each.low], [0.0]) * count.low
        return low, Load.of_rows([each.high], [min(said, each.high)]) * count.high

    return Totals(
        model=MODELS["135m"],
        settings=FinetuningSettings(),
        trials=trials,
        batch=8 * row.high,
        training=loads(row, trials * passes),
        evaluation=loads(tokens, trials * instructions),
        scoring=loads(row, Range(scored, 2 * scored)),  # a second layer is a second pass
        embedded=texts * scored,
        row_bytes=Range(MEASURED_BYTES, ROW_BYTES),
        rows=Range.of(rows),
        drawn=Range.of(rows) * trials,
        scored=Range.of(scored),
        indicators=9,
        numbers=MINILM_NUMBERS,
        losses=instructions * outputs,
    )


def _demo() -> Totals:
    """profiles/demo.yaml: at most 39 finetunes (its plan), 29 where sets coincide; 10 examples,
    two epochs, at most 48 tokens; 18 instructions."""
    return _small(Range(29, 39), 20, Range(36, 48), Range(40, 60), 18, 1, 48, 660, Range(60, 120),
                  660)  # fmt: skip


def _real_small() -> Totals:
    """profiles/real_small.yaml: 127 finetunes of 64 examples, two epochs, 54 to 64 tokens (its
    report's operations); 128 instructions with two outputs of at most 32 tokens; Dolly (14,985)
    and 1,340 members scored."""
    return _small(Range(127, 127), 128, Range(54, 64), Range(64, 112), 128, 2, 64, 16_325,
                  Range(100, 400), 38_411)  # fmt: skip
