"""What is measured of a finetune: the registry of measures.

A measure is a pure function from one trial's rows to one number, under the ``@measure`` decorator;
a profile line ``evaluation: {measures: [<name>]}`` or ``rule: {target: <name>}`` puts it to use.
The modules of this folder hold the built-in ones. What it ``reads`` says which rows it is given:

* ``losses``: one row a reference output: eval_id, output_index, nll (nats, summed), tokens, loss.
* ``answers``: one row an instruction, answered greedily: eval_id, instruction, input, category,
  response (the model's answer), tokens (generated), complete, and what the evaluation row carries:
  answer, pattern ('' where none).
* ``verdicts``: one row an instruction, the model's answer judged against the base model's:
  eval_id, outcome (win, tie, lose, or null: not judged), position_bias.

Of runs that were made elsewhere the number is read, not taken: `own_measure`, which reads ``runs``.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from im_assets.common.digests import taken
from im_resources.registry import Registry
from im_resources.study import EvaluationSettings, JudgeSettings, RunsSettings, Study
from im_resources.turns import turns_columns

Reads: TypeAlias = Literal["losses", "answers", "verdicts", "runs"]
Scale: TypeAlias = Literal["log", "logit", "identity"]
Direction: TypeAlias = Literal["lower", "higher"]
Compute: TypeAlias = Callable[..., float]


class MeasureError(ValueError):
    """A measure that cannot be taken; names the setting or field, and what would do."""


@dataclass(frozen=True)
class Measure:
    """A number of a trial.

    Attributes:
        compute: ``compute(rows)`` gives the number; further parameters are settings of
            `evaluation` of the same names.
        version: changes when the same rows would give another number.
        reads: which rows it is given (see the module).
        scale: what is regressed when it is the rule's target, unless the profile says otherwise.
        direction: whether the lower or the higher is the better model.
        unit: of the number, for tables and figures.
        description: one sentence, the first of the function's docstring.
        needs: the fields ('answer', 'pattern') that an instruction has to carry to count.
        count: of how many the number is a share; None for what is no share.
    """

    name: str
    compute: Compute
    version: int
    reads: Reads
    scale: Scale = "identity"
    direction: Direction = "higher"
    unit: str = ""
    description: str = ""
    needs: tuple[str, ...] = ()
    count: Callable[[pd.DataFrame], int] | None = None

    @property
    def label(self) -> str:
        """Its name in sentences and figures: ``exact match``."""
        return self.name.replace("_", " ")

    def of(self, rows: pd.DataFrame) -> float:
        """The number of one trial. Raises MeasureError for one that is not finite."""
        value = float(self.compute(rows))
        if not np.isfinite(value):
            raise MeasureError(f"measure {self.name!r} is {value}; it has to be a finite number")
        return value


MEASURES: Registry[Measure] = Registry("measure", __name__, MeasureError)


def measure(
    name: str,
    *,
    version: int,
    reads: Reads,
    scale: Scale = "identity",
    direction: Direction = "higher",
    unit: str = "",
    needs: tuple[str, ...] = (),
    count: Callable[[pd.DataFrame], int] | None = None,
) -> Callable[[Compute], Compute]:
    """Register the decorated function as the measure ``name`` (see Measure for the arguments).

    Raises MeasureError when another function has the name already.
    """

    def register(compute: Compute) -> Compute:
        about = (inspect.getdoc(compute) or "").split("\n")[0]
        entry = Measure(
            name, compute, version, reads, scale, direction, unit, about, needs, count
        )  # fmt: skip
        MEASURES.add(name, entry, compute)
        return compute

    return register


def measure_of(name: str, settings: EvaluationSettings, field: str) -> Measure:
    """The measure ``name``, which the profile asks for in ``field``, with its settings bound.

    Raises MeasureError when there is none, or when it has a parameter that is no setting.
    """
    found = MEASURES.get(name, field)
    parameters = list(inspect.signature(found.compute).parameters)[1:]
    known = type(settings).model_fields
    if lacking := [p for p in parameters if p not in known]:
        raise MeasureError(
            f"measure {name!r}: its parameter {lacking[0]!r} is no setting of `evaluation`; "
            f"known: {', '.join(known)}"
        )
    options = {p: getattr(settings, p) for p in parameters}
    return replace(found, compute=partial(found.compute, **options)) if options else found


def own_measure(settings: RunsSettings) -> Measure:
    """What was measured of runs that were made elsewhere, with scale, direction and unit as of the
    measure of that name, if there is one.

    Raises MeasureError where nothing says which direction is the better one.
    """
    name = settings.measure
    known = MEASURES.all().get(name)
    if known is None and settings.direction is None:
        raise MeasureError(
            f"runs.direction is missing: whether a lower or a higher {name} is the better one; set "
            "it to lower or higher"
        )
    return Measure(
        name,
        partial(_read, name=name),
        1,
        "runs",
        "identity" if known is None else known.scale,
        "lower" if known is None else known.direction,
        "" if known is None else known.unit,
        "Measured of runs that were made elsewhere.",
    )


def _read(rows: pd.DataFrame, name: str) -> float:
    """The number as the file has it, one row a run."""
    return float(rows[name].iloc[0])


def measures_of(study: Study) -> list[Measure]:
    """What the study measures: `evaluation.measures` in their order, then the rule's target.

    Raises MeasureError for an unknown measure, or one that reads verdicts without a `judge`. Of own
    runs, what was measured of them.
    """
    if study.runs is not None:
        return [own_measure(study.runs)]
    asked = [("evaluation.measures", name) for name in study.evaluation.measures]
    asked.append(("rule.target", study.rule.target.measure))
    found: dict[str, Measure] = {}
    for field, name in asked:
        if name not in found:
            found[name] = measure_of(name, study.evaluation, field)
            if found[name].reads == "verdicts" and study.judge is None:
                raise MeasureError(
                    f"{field}: {name} reads a judge's verdicts, and the profile has no `judge`"
                )
    return list(found.values())


def beside_target(study: Study) -> list[Measure]:
    """What the study measures beside the rule's target."""
    return [m for m in measures_of(study) if m.name != study.target.measure]


def rows_read(study: Study) -> tuple[Reads, ...]:
    """What has to be there for the study's measures beside losses: answers, verdicts on them."""
    reads = {m.reads for m in measures_of(study)}
    if "verdicts" in reads:
        return "answers", "verdicts"
    return ("answers",) if "answers" in reads else ()


def instructions_for(
    measures: Iterable[Measure], rows: pd.DataFrame, judge: JudgeSettings | None
) -> pd.DataFrame:
    """The instructions that have to be answered for the measures, in the set's order, one row each:
    eval_id, instruction, input, category, answer, pattern, and turns where some are conversations.

    Those that carry what a measure needs; `judge.instructions`, as `judge.take` says, for one that
    reads verdicts; all for one that reads answers and needs nothing of them.

    Args:
        rows: the evaluation rows, as ``evaluation_rows`` gives them.

    Raises MeasureError when no instruction carries a field that a measure needs.
    """
    each = rows.drop_duplicates("eval_id").reset_index(drop=True)
    for name in ("answer", "pattern"):  # not in a set that an earlier version read
        if name not in each:
            each[name] = ""
    wanted = np.zeros(len(each), dtype=bool)
    for m in measures:
        if m.reads == "verdicts" and judge is not None:
            judged = taken(each["eval_id"], judge.instructions, judge.take, judge.sample_seed)
            wanted |= each["eval_id"].isin(judged).to_numpy()
        elif m.reads == "answers":
            wanted |= _carrying(each, m)
    columns = ["eval_id", "instruction", "input", "category", "answer", "pattern"]
    columns += turns_columns(each)
    return each.loc[wanted, columns].reset_index(drop=True)


def _carrying(instructions: pd.DataFrame, m: Measure) -> np.ndarray:
    """Which instructions carry all that the measure needs, bool [instructions]."""
    mask = np.ones(len(instructions), dtype=bool)
    for name in m.needs:
        mask &= (instructions[name].fillna("") != "").to_numpy()
        if not mask.any():
            raise MeasureError(
                f"{m.name} needs the field {name!r}, and no instruction of the evaluation set "
                f"carries it: give its rows a column {name!r}, or name the column in "
                f"data.evaluation.fields.{name} (format: fields)"
            )
    return mask


def measured(found: Measure, table: pd.DataFrame, column: str) -> dict[str, float]:
    """The measure of each trial in a table of many, by its partition key in ``column``."""
    return {str(key): found.of(rows) for key, rows in table.groupby(column, observed=True)}


def counted(found: Measure, table: pd.DataFrame, column: str) -> dict[str, int] | None:
    """Of how many each trial's number is a share, by partition key; None for what is no share."""
    if found.count is None:
        return None
    groups: Mapping[Any, pd.DataFrame] = dict(iter(table.groupby(column, observed=True)))
    return {str(key): found.count(rows) for key, rows in groups.items()}
