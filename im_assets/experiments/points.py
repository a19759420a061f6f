"""Points: every measured trial is one, of mean indicators and losses.

A set's indicators are means over its members of scores made once an example, on the scale of
`rule.transform`, and properties of the set (KNN-i) on that scale. The rule is a regression on
points, of whichever experiments the profile names.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from im_assets.common.tracking import tracked
from im_assets.experiments.answering import asked_of, instructions_fingerprint
from im_assets.experiments.evaluation import evaluation_fingerprint, evaluation_rows, overall_by
from im_assets.experiments.experiment import Experiment, some
from im_assets.experiments.finetuning import training_settings_id
from im_assets.experiments.holdout import Part, PartName, measured_columns
from im_assets.experiments.lineage import Expected, Fault, LineageError, faults_of, told
from im_assets.experiments.measures import (
    Measure,
    Reads,
    counted,
    measured,
    measures_of,
    rows_read,
)
from im_assets.rule.ready import transform_of
from im_assets.rule.target import Target, target_measure
from im_assets.rule.transform import COLUMN as TRANSFORM
from im_assets.rule.transform import Transform, transformed
from im_assets.scoring.batch import Models
from im_assets.scoring.embeddings import embeddings_of
from im_assets.scoring.registry import Indicator, SetTooSmall
from im_resources.gpu import GpuResource
from im_resources.judge import judge_fingerprint
from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse

KEYS = ["experiment", "partition", "n_examples", "largest_source"]
PARENTS = ["set_id", "trial_id", "settings_id", "base_id", "evaluation_id"]


@dataclass(frozen=True)
class Sets:
    """Sets of examples that are to have indicators, and where these are taken from.

    Attributes:
        noun: what they are called, in the plural.
        column: of ``members``, with the name of each set.
        members: ``column``, set_id, position, example_id and source; one row a member.
        samples, scores: the assets with the members and with the scores of their examples.
    """

    noun: str
    column: str
    members: pd.DataFrame
    samples: str
    scores: str


@dataclass(frozen=True)
class Parts:
    """The tables of one experiment, as they are now."""

    experiment: Experiment
    samples: pd.DataFrame
    adapters: pd.DataFrame
    losses: pd.DataFrame
    pool: pd.DataFrame
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # answers, verdicts
    part: PartName = "all"  # of the instructions that the losses and the further rows are of

    @classmethod
    def of(cls, experiment: Experiment, tables: Mapping[str, pd.DataFrame]) -> "Parts":
        """From tables by the names of their assets; of a series, its keys as they are now."""
        experiment = experiment.now(tables)
        kinds = ("samples", "adapters", "losses")
        samples, adapters, losses = (tables[experiment.asset(kind)] for kind in kinds)
        more = {kind: tables[experiment.asset(kind)] for kind in experiment.rows}
        return cls(experiment, samples, adapters, losses, tables[experiment.pool], more)

    @staticmethod
    def names(experiment: Experiment) -> tuple[str, ...]:
        """The assets that the parts are read from, and what they are compared with."""
        return (
            experiment.samples,
            experiment.adapters,
            experiment.losses,
            *(experiment.asset(kind) for kind in experiment.rows),
            experiment.pool,
            "eval_set",
            *experiment.told_by,
        )

    def faults(
        self, eval_set: pd.DataFrame, study: Study, gpu: GpuResource, any_set: bool = False
    ) -> list[Fault]:
        """Why partitions of the experiment are no points (see lineage).

        Args:
            any_set: sets may have been drawn with other settings than the profile's.
        """
        rows = evaluation_rows(eval_set, study.evaluation)
        weights = gpu.base_weights(study)
        precisions = self.adapters["precision"].unique() if "precision" in self.adapters else ()
        base_of = {str(p): fingerprint(weights, str(p)) for p in precisions}
        wanted = study.models.precision
        expected = Expected(
            settings_id=training_settings_id(study),
            base_of=base_of,
            evaluation_id=evaluation_fingerprint(rows, study),
            examples=frozenset(self.pool["example_id"]),
            instructions_id=instructions_id_of(study, eval_set),
            drawing_id=None if any_set else self.experiment.drawing_id(study),
            precision=None if wanted == "auto" else wanted,
            judges=frozenset(
                judge_fingerprint(study.judge, base) for base in base_of.values() if study.judge
            ),
        )
        tables = (self.samples, self.adapters, self.losses)
        return faults_of(self.experiment, *tables, expected, self.more)

    def without(self, faults: Sequence[Fault]) -> "Parts":
        """The parts of the partitions that have no fault, and of no others."""
        column = self.experiment.column
        good = set(self.experiment.keys) - {fault.partition for fault in faults}
        samples, adapters, losses = (
            frame[frame[column].isin(good)] for frame in (self.samples, self.adapters, self.losses)
        )
        more = {kind: rows[rows[column].isin(good)] for kind, rows in self.more.items()}
        return replace(self, samples=samples, adapters=adapters, losses=losses, more=more)

    def whole(self, faults: Sequence[Fault]) -> "Parts":
        """These parts. Raises LineageError when some partition has a fault, with all of them."""
        if faults:
            raise LineageError("; ".join(told(faults, len(self.experiment.keys))))
        return self.without(())

    def only(self, eval_ids: Collection[str], part: PartName | None = None) -> "Parts":
        """The same partitions, measured on these instructions alone (called ``part``)."""
        kept = self.losses[self.losses["eval_id"].isin(eval_ids)]
        more = {kind: rows[rows["eval_id"].isin(eval_ids)] for kind, rows in self.more.items()}
        return replace(self, losses=kept, more=more, part=part or self.part)

    def on(self, part: Part) -> "Parts":
        """The same partitions, measured on a part of the evaluation set."""
        return self.only(part.eval_ids, part.name)

    @property
    def sets(self) -> Sets:
        """The sets of the partitions, with the source of each member."""
        experiment = self.experiment
        members = self.samples[[experiment.column, "set_id", "position", "example_id"]].merge(
            self.pool[["example_id", "source"]], "left", on="example_id", validate="many_to_one"
        )
        names = experiment.samples, experiment.scores
        return Sets(experiment.noun, experiment.column, members, *names)

    def measured_columns(self, study: Study) -> dict[str, str | int]:
        """Which instructions the rule's target is measured on here (see ``holdout.MEASURED``)."""
        rows, ids = self.rows(target_measure(study).reads), self.losses["evaluation_id"]
        return measured_columns(self.part, rows, ids, study.evaluation.holdout)

    def one(self, column: str) -> str:
        """The value of a column of the samples that all partitions share.

        Raises LineageError when they do not: they were not drawn at one time.
        """
        values = self.samples[column].unique()
        if len(values) != 1:
            raise LineageError(
                f"the {self.experiment.noun} were drawn with {len(values)} different values of "
                f"{column}; materialize {self.experiment.samples} for all of them, and what follows"
            )
        return str(values[0])

    def rows(self, reads: Reads) -> pd.DataFrame:
        """The rows that a measure reads."""
        return self.losses if reads == "losses" else self.more[reads]

    def measured(self, measure: Measure) -> dict[str, float]:
        """The measure of each partition, by its key."""
        return measured(measure, self.rows(measure.reads), self.experiment.column)

    def counted(self, measure: Measure) -> dict[str, int] | None:
        """Of how many each partition's measure is a share, by its key; None for what is none."""
        return counted(measure, self.rows(measure.reads), self.experiment.column)


def values_fingerprint(indicators: Sequence[Indicator], study: Study, models: Models) -> str:
    """What a point's values depend on beside its trial: indicators and their scale, weighting,
    measures, and what is held out."""
    versions = sorted((i.name, i.fingerprint(models)) for i in indicators)
    measures = sorted((m.name, m.version) for m in measures_of(study))
    settings, transform = study.evaluation, transform_of(study)
    if study.runs is not None:  # measured elsewhere: no setting of the evaluation counts
        return fingerprint("values of runs", versions, measures, transform)
    # Values as they are, of all instructions, have the fingerprint that they had before there was
    # anything else.
    scale = [] if transform == "none" else [transform]
    part = () if settings.holdout is None else (("fitted on all but", settings.holdout),)
    return fingerprint("values", versions, settings.weighting, measures, *scale, *part)


def instructions_id_of(study: Study, eval_set: pd.DataFrame) -> str | None:
    """The fingerprint of what is answered for the study's measures; None where nothing is."""
    if not rows_read(study):
        return None
    return instructions_fingerprint(asked_of(study, eval_set), study)


def points_of(
    parts: Parts,
    indicators: Sequence[Indicator],
    study: Study,
    models: Models,
    warehouse: Warehouse,
) -> pd.DataFrame:
    """One row a partition: its indicators, its losses, and the fingerprints of its parents.

    Args:
        parts: of partitions without a fault; their samples and the pool's scores are in the
            warehouse too, under the names of their assets.

    Returns:
        experiment, partition, n_examples, largest_source, the indicators, their ``transform``,
        token_loss, instruction_loss, loss (as evaluation.weighting says), log_loss, the study's
        other measures, the rule's target, which instructions the losses are of (part,
        instructions), and the fingerprints.

    Raises LineageError when a member lacks a score, or has one of another version of the indicator.
    """
    column, samples = parts.experiment.column, parts.samples
    weighting = study.evaluation.weighting
    if samples.empty:
        return pd.DataFrame(columns=[*KEYS, *(i.name for i in indicators), TRANSFORM])
    table = indicators_of(parts.sets, indicators, transform_of(study), models, warehouse)
    table.insert(0, "experiment", parts.experiment.name)
    for name in ("token", "instruction"):
        table[f"{name}_loss"] = pd.Series(overall_by(parts.losses, column, name))
    table["loss"] = table[f"{weighting}_loss"]
    table["log_loss"] = np.log(table["loss"])
    target = Target.of(study)
    for measure in measures_of(study):
        if measure.name not in table:
            table[measure.name] = pd.Series(parts.measured(measure), dtype="float64")
        if measure.name == target.measure:
            counts = parts.counted(measure)
            n = None if counts is None else table.index.map(counts).to_numpy(dtype=float)
            table[target.column] = target.transform(table[measure.name].to_numpy(), n)
    table["part"] = parts.part
    table["instructions"] = parts.losses.groupby(column)["eval_id"].nunique()
    table["values_id"] = values_fingerprint(indicators, study, models)
    adapters = parts.adapters.set_index(column)
    table = table.join(adapters[[p for p in PARENTS if p != "evaluation_id"]])
    table["evaluation_id"] = parts.losses.groupby(column)["evaluation_id"].first()
    for kind, rows in parts.more.items():
        table[f"{kind}_id"] = rows.groupby(column)["instructions_id"].first()
    table = table.rename_axis("partition").reset_index()
    order = {key: place for place, key in enumerate(parts.experiment.keys)}
    return table.sort_values("partition", key=lambda keys: keys.map(order), ignore_index=True)[
        ["experiment", "partition", *table.columns.drop(["experiment", "partition"])]
    ]


def indicators_of(
    sets: Sets,
    indicators: Sequence[Indicator],
    transform: Transform,
    models: Models,
    warehouse: Warehouse,
) -> pd.DataFrame:
    """Every set's indicators: index its name; n_examples, largest_source, the indicators, and their
    ``transform``.

    Args:
        transform: the scale on which an example's indicators are read before the mean is taken.

    Raises LineageError when a member lacks a score, or has one of another version of the indicator;
    SetTooSmall for a set of too few examples, by its name.
    """
    values = _means(sets, indicators, models, warehouse, transform)
    for indicator in indicators:
        if indicator.backend.scope != "example":
            found = _of_sets(sets, indicator, models, warehouse)
            values[indicator.name] = pd.Series(transformed(found, transform), found.index)
    sizes = sets.members.groupby(sets.column).size()
    table = pd.DataFrame({"n_examples": sizes, "largest_source": _largest_source(sets)})
    table = table.join(values[[i.name for i in indicators]])
    table[TRANSFORM] = transform
    return table


def _means(
    sets: Sets,
    indicators: Sequence[Indicator],
    models: Models,
    warehouse: Warehouse,
    transform: Transform,
) -> pd.DataFrame:
    """Mean over each set's members of every indicator that an example has (set_indicators.sql)."""
    long = warehouse.query(
        "set_indicators.sql",
        {"samples": sets.samples, "scores": sets.scores, "transform": transform},
    )
    members = sets.members.groupby(sets.column)["set_id"].agg(["first", "size"])
    found = pd.DataFrame(index=members.index)
    for indicator in (i for i in indicators if i.backend.scope == "example"):
        mine = long[
            (long["indicator"] == indicator.name)
            & (long["fingerprint"] == indicator.fingerprint(models))
        ].set_index("set_id")
        scored = members["first"].map(mine["scored"]).fillna(0)
        if len(short := members.index[scored < members["size"]]):
            raise LineageError(
                f"{indicator.name} is not scored, or was scored by another version of it, for "
                f"some members of {len(short)} {sets.noun} ({some(list(short))}); "
                f"materialize {sets.scores} again"
            )
        found[indicator.name] = members["first"].map(mine["value"])
    return found


def _of_sets(sets: Sets, indicator: Indicator, models: Models, warehouse: Warehouse) -> pd.Series:
    """A set-level indicator of every set, from the members' cached embeddings."""
    ids = sets.members["example_id"].unique()
    place = pd.Series(range(len(ids)), index=ids)
    vectors = embeddings_of(list(ids), models, warehouse)
    each = sets.members.sort_values("position").groupby(sets.column)
    found = {}
    for key, members in tracked(each, f"{indicator.name} of", sets.noun, each.ngroups):
        try:
            found[key] = indicator.of_set(vectors[place[members["example_id"]].to_numpy()])
        except SetTooSmall as error:
            raise SetTooSmall(f"{key}, of {sets.noun}: {error}") from error
    return pd.Series(found)


def _largest_source(sets: Sets) -> pd.Series:
    """The source with most examples in each set; ties to the first by name."""
    counts = sets.members.groupby([sets.column, "source"]).size().unstack(fill_value=0)
    return counts.sort_index(axis=1).idxmax(axis=1).astype(str)
