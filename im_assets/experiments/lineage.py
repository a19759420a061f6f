"""Lineage: whether the parts of a trial belong together, by content and not by name.

A set's fingerprint goes from its samples through the adapter into every loss row, beside those of
the trainer's settings, the base and the evaluation set. Where the tables meet they are compared
here: a loss of an adapter that was trained on another set is never joined with this set's scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from im_assets.experiments.experiment import Experiment, some
from im_resources.study import fingerprint

FaultKind = Literal[
    "not drawn",
    "drawn otherwise",
    "another version",
    "withdrawn examples",
    "not finetuned",
    "another set",
    "other settings",
    "another base",
    "not evaluated",
    "another finetune",
    "another evaluation set",
    "not answered",
    "answers of another finetune",
    "answers to other instructions",
    "not judged",
    "verdicts on another finetune",
    "verdicts on other instructions",
    "verdicts of another judge",
]


_ANSWERED = ["set_id", "trial_id", "instructions_id"]


class LineageError(ValueError):
    """Parts of a trial that do not belong together; names them and what to materialize."""


@dataclass(frozen=True)
class Expected:
    """What every trial of an experiment has to have been made with.

    Attributes:
        settings_id: of the trainer's settings.
        base_of: fingerprint of the base model's weights in each precision that was trained in.
        evaluation_id: of the evaluation set, its cuts and prompt.
        examples: ids of the pool's examples.
        instructions_id: of the instructions that are answered; None where none are.
        drawing_id: of the settings that sets are drawn with; None: a set may be any.
        precision: of the base model; None: any, but one for all.
        judges: fingerprints of the judge, one for each precision where it is the base model.
    """

    settings_id: str
    base_of: Mapping[str, str]
    evaluation_id: str
    examples: frozenset[str]
    instructions_id: str | None = None
    drawing_id: str | None = None
    precision: str | None = None
    judges: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fault:
    """Why one partition is no point: what disagrees, and the asset that mends it."""

    partition: str
    kind: FaultKind
    asset: str


def set_id_of(example_ids: Iterable[str]) -> str:
    """The fingerprint of a set: its example_ids in order."""
    return fingerprint("set", [str(example) for example in example_ids])


def same_base(trial: str, manifest: Mapping[str, Any], base: str) -> None:
    """Refuse to measure a trial over another base, or in another precision, than it was trained on.

    Raises LineageError: its losses would be those of no finetune.
    """
    if manifest["base"] != base:
        raise LineageError(
            f"the finetune {trial} was trained over another base, or in another precision "
            f"({manifest['precision']}), than this run would measure it with: set models.precision "
            "to it, or materialize the adapters asset that it belongs to again"
        )


def faults_of(
    experiment: Experiment,
    samples: pd.DataFrame,
    adapters: pd.DataFrame,
    losses: pd.DataFrame,
    expected: Expected,
    more: Mapping[str, pd.DataFrame] | None = None,
) -> list[Fault]:
    """At most one fault for each of the experiment's partitions, in their order.

    Of several faults the one furthest upstream is told: mending it mends the others.

    Args:
        more: the tables of the experiment's further ``rows``: answers, verdicts.
    """
    column = experiment.column
    drawn = ["set_id", "drawing_id"]
    if experiment.series is not None:
        if "pool_version" not in samples:  # written before the pool had versions
            samples = samples.assign(pool_version=1)
        samples = samples.assign(pool_version=samples["pool_version"].fillna(1).astype("int64"))
        drawn.append("pool_version")
    parts = {
        "samples": _distinct(samples, column, drawn),
        "adapters": _distinct(
            adapters, column, ["set_id", "settings_id", "base_id", "precision", "trial_id"]
        ),
        "losses": _distinct(losses, column, ["set_id", "trial_id", "evaluation_id"]),
    }
    columns = {"answers": _ANSWERED, "verdicts": [*_ANSWERED, "judge_id"]}
    further = {kind: _distinct(rows, column, columns[kind]) for kind, rows in (more or {}).items()}
    strangers = samples.loc[~samples["example_id"].isin(expected.examples), column]
    withdrawn = set(strangers.astype(str))
    usual = adapters["precision"].mode()
    precision = expected.precision or (str(usual.iloc[0]) if len(usual) else "")
    found = []
    for key in experiment.keys:
        fault = _fault(
            experiment, key in withdrawn, precision, expected,
            **{name: part.get(key) for name, part in parts.items()},
        )  # fmt: skip
        for kind, rows in further.items():
            fault = fault or _further_fault(
                experiment, kind, parts["adapters"][key], rows.get(key), expected
            )
        if fault is not None:
            found.append(Fault(key, *fault))
    return found


def _fault(
    experiment: Experiment,
    withdrawn: bool,
    precision: str,
    expected: Expected,
    samples: Mapping[str, Any] | None,
    adapters: Mapping[str, Any] | None,
    losses: Mapping[str, Any] | None,
) -> tuple[FaultKind, str] | None:
    if samples is None:
        return "not drawn", experiment.samples
    if expected.drawing_id not in (None, samples["drawing_id"]):
        return "drawn otherwise", experiment.samples
    version = experiment.versions.get(str(samples[experiment.column]))
    if version not in (None, samples.get("pool_version")):
        return "another version", experiment.samples
    if withdrawn:  # a series retires the set; any other experiment draws it again
        return "withdrawn examples", experiment.series or experiment.samples
    if adapters is None:
        return "not finetuned", experiment.adapters
    if adapters["set_id"] != samples["set_id"]:
        return "another set", experiment.adapters
    if adapters["settings_id"] != expected.settings_id:
        return "other settings", experiment.adapters
    base = expected.base_of.get(str(adapters["precision"]))
    if adapters["base_id"] != base or adapters["precision"] != precision:
        return "another base", experiment.adapters
    if losses is None:
        return "not evaluated", experiment.losses
    if (losses["trial_id"], losses["set_id"]) != (adapters["trial_id"], samples["set_id"]):
        return "another finetune", experiment.losses
    if losses["evaluation_id"] != expected.evaluation_id:
        return "another evaluation set", experiment.losses
    return None


def _further_fault(
    experiment: Experiment,
    kind: str,
    adapters: Mapping[str, Any],
    rows: Mapping[str, Any] | None,
    expected: Expected,
) -> tuple[FaultKind, str] | None:
    asset, answers = experiment.asset(kind), kind == "answers"
    if rows is None:
        return "not answered" if answers else "not judged", asset
    if (rows["trial_id"], rows["set_id"]) != (adapters["trial_id"], adapters["set_id"]):
        return "answers of another finetune" if answers else "verdicts on another finetune", asset
    if rows["instructions_id"] != expected.instructions_id:
        kinds: tuple[FaultKind, FaultKind] = (
            "answers to other instructions", "verdicts on other instructions"
        )  # fmt: skip
        return kinds[not answers], asset
    if not answers and rows["judge_id"] not in expected.judges:
        return "verdicts of another judge", asset
    return None


def told(faults: Sequence[Fault], total: int) -> list[str]:
    """One line a kind of fault: which partitions, and what to materialize."""
    lines = []
    for kind, asset in dict.fromkeys((fault.kind, fault.asset) for fault in faults):
        keys = [f.partition for f in faults if (f.kind, f.asset) == (kind, asset)]
        lines.append(
            f"{len(keys)} of {total} have {_WORDS[kind]}: {some(keys)}; materialize {asset} "
            "for them, and what follows"
        )
    return lines


_WORDS: dict[FaultKind, str] = {
    "not drawn": "not been drawn",
    "drawn otherwise": "been drawn with other settings",
    "another version": "been drawn from another version of the pool",
    "withdrawn examples": "examples that the pool no longer holds",
    "not finetuned": "not been finetuned on",
    "another set": "an adapter that was trained on another set",
    "other settings": "an adapter that was trained with other settings",
    "another base": "an adapter of another base model or precision",
    "not evaluated": "no evaluation losses",
    "another finetune": "losses of another finetune",
    "another evaluation set": "losses on another evaluation set",
    "not answered": "not answered the evaluation instructions",
    "answers of another finetune": "answers of another finetune",
    "answers to other instructions": "answers to other instructions, or of another length",
    "not judged": "no verdicts against the base model",
    "verdicts on another finetune": "verdicts on another finetune",
    "verdicts on other instructions": "verdicts on answers to other instructions",
    "verdicts of another judge": "verdicts of another judge",
}


def _distinct(
    frame: pd.DataFrame, key: str, columns: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """The values of each partition; a partition of which several were stored is an error.

    Raises LineageError for a table written before it carried fingerprints.
    """
    if missing := [name for name in columns if name not in frame]:
        raise LineageError(
            f"a table with the partitions {key!r} has no column {', '.join(missing)}: it was "
            "written by an earlier version; materialize it again (nothing is trained or evaluated "
            "twice)"
        )
    rows = frame[[key, *columns]].drop_duplicates()
    twice = rows[key][rows[key].duplicated()].astype(str).tolist()
    if twice:
        raise LineageError(f"rows of several trials under one partition: {some(twice)}")
    records: list[dict[Any, Any]] = rows.to_dict("records")
    return {str(row[key]): row for row in records}
