"""How much there is to compute, and how much of it is there: by content, as the run finds it.

What is scored, trained or measured is known by what it was made from, so a plan looks it up under
the very keys under which the run would. Where these cannot be known yet (the data have not been
read, a set is drawn by a rule that is not fitted yet), what the profile asks for is an upper bound,
and is told as one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import pandas as pd

from im_assets.candidates.files import SourceError, source_files
from im_assets.candidates.versions import HISTORY
from im_assets.common.formatting import bytes_shown
from im_assets.common.versions import stored_version
from im_assets.experiments.assets.trials import base_key
from im_assets.experiments.evaluation import CACHE as LOSSES
from im_assets.experiments.evaluation import evaluation_fingerprint, evaluation_rows
from im_assets.experiments.experiment import Drawing, Experiment, seed_of
from im_assets.experiments.finetuning import Finetune
from im_assets.experiments.lineage import LineageError
from im_assets.mixtures.experiment import SERIES, mixture_experiment
from im_assets.mixtures.growing import grown_series
from im_assets.own_runs import RUNS
from im_assets.planning.judged import of_measures, of_ratings, of_the_judge, there
from im_assets.planning.work import Kind, Work, sources_of
from im_assets.rounds.experiment import round_experiments
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_assets.scoring.scorer import unscored
from im_assets.selection.experiment import size_experiment
from im_assets.univariate.experiment import univariate_experiment
from im_assets.validation.arms import arms_of
from im_assets.validation.experiment import validation_experiment
from im_assets.validation.second_set import SECOND
from im_resources.gpu import GpuResource
from im_resources.study import DataSource, ProfileError, Study, fingerprint
from im_resources.warehouse import Warehouse

POOL = "candidate_datasets"


@dataclass
class Counting:
    """What a study's work is counted from.

    Attributes:
        manifests: of the adapters that are there, by trial.
        no_base: why the base model cannot be read here; no trial can be known without it.
        no_scorer: why it, or another model of the indicators, cannot; no score can be known.
        changed: assets whose content may be another after this run: settings or files that they are
            made from were changed.
    """

    study: Study
    warehouse: Warehouse
    gpu: GpuResource
    manifests: Mapping[str, Mapping[str, Any]]
    no_base: Sequence[str] = ()
    no_scorer: Sequence[str] = ()
    changed: Mapping[str, str] = field(default_factory=dict)

    def work(self) -> list[Work]:
        """All that is counted, in the order of a run."""
        found = [*self._reading()]
        if self.study.fits_nothing:
            return [*found, *self._pools()]
        if self.study.runs is not None:
            return [*found, *self._of_runs(), *self._pools()]
        mixtures = self._mixtures()
        found += [*self._candidates(mixtures), *self._pools()]
        found += self._trials(mixtures)
        for experiment in self._later():
            sets = self._drawn(experiment, self._settled(experiment, found))
            found += self._trials(sets)
            if experiment.name == "validation":
                trials = self._trial_ids(sets)
                found += of_the_judge(trials, self.study, self.warehouse, self._base)
                found += self._second_losses(experiment, trials)
        return found

    def _settled(self, experiment: Experiment, before: Sequence[Work]) -> bool:
        """Whether nothing that an experiment's sets are drawn by will change in this run."""
        if self.changed.keys() & {POOL, "eval_set", *experiment.made_from}:
            return False
        by_rule = "quality_rule" in experiment.made_from or experiment.gate is not None
        return all(w.left == 0 for w in before if by_rule or w.kind in ("reading", "scoring"))

    # -- what is read ------------------------------------------------------------------------------

    def _reading(self) -> list[Work]:
        return [self._read(asset, parts) for asset, parts in sources_of(self.study).items()]

    def _read(self, asset: str, sources: Sequence[DataSource]) -> Work:
        if not self.warehouse.has_table(asset):
            return Work(asset, "reading", "rows", None, note=f"not read yet: {told_files(sources)}")
        count = self.warehouse.query(f'SELECT count(*) AS n FROM "{asset}"')["n"].iloc[0]
        why = self.changed.get(asset)
        note = "" if why is None else f"{why}: counted as they were read before"
        return Work(asset, "reading", "rows", int(count), int(count), note=note)

    # -- what is scored ----------------------------------------------------------------------------

    def _candidates(self, mixtures: "Sets") -> list[Work]:
        if self.study.scoring.score == "all":
            return self._scoring("example_scores", POOL, self._ids(POOL))
        ids = mixtures.members
        most = len(mixtures.keys) * self.study.mixtures.size if ids is None else None
        return self._scoring("example_scores", POOL, ids, most)

    def _of_runs(self) -> list[Work]:
        """The candidates that some finished run was trained on, or all."""
        if self.study.scoring.score == "all":
            return self._scoring("example_scores", POOL, self._ids(POOL))
        ids = self._ids(RUNS)
        members = None if ids is None else list(dict.fromkeys(ids))
        return self._scoring("example_scores", POOL, members)

    def _pools(self) -> list[Work]:
        tables = {f"{pool}_scores": f"{pool}_dataset" for pool in self.study.pools}
        return [
            work
            for asset, table in tables.items()
            for work in self._scoring(asset, table, self._ids(table))
        ]

    def _scoring(
        self, asset: str, table: str, ids: list[str] | None, most: int | None = None
    ) -> list[Work]:
        """Scores of some examples of a table, and what a judge is asked for them.

        Args:
            ids: None: not known which.
            most: how many these are at most then.
        """
        models = Models.of(self.study, self.gpu)
        if ids is None or self.no_scorer:
            most = most if ids is None else len(ids)
            scoring = self._unknown(asset, "scoring", "examples", most)
            return [scoring, *of_ratings(asset, table, None, models, self.warehouse, most)]
        missing = unscored(ids, chosen(self.study.scoring), models, self.warehouse)
        found = len(ids) - len(missing)
        scoring = Work(asset, "scoring", "examples", len(ids), found, size=len(missing))
        return [scoring, *of_ratings(asset, table, ids, models, self.warehouse)]

    # -- what is finetuned and measured ------------------------------------------------------------

    def _mixtures(self) -> "Sets":
        """The sets of the mixtures, each as it was drawn or will be."""
        experiment, study = mixture_experiment(self.study), self.study
        size = study.mixtures.size
        if not (self.warehouse.has_table(POOL) and self.warehouse.has_table(HISTORY)):
            return Sets(experiment, dict.fromkeys(experiment.keys, size))
        pool = self.warehouse.read_table(POOL, ["example_id", "source"])
        tables, models = {POOL: pool}, Models.of(study, self.gpu)
        if study.mixtures.kind != "random":  # drawn by scores
            if not self.warehouse.has_table(experiment.scores):
                return Sets(experiment, dict.fromkeys(experiment.keys, size))
            tables[experiment.scores] = self.warehouse.read_table(experiment.scores)
        try:
            series = grown_series(study, self.warehouse, pool, models).series
        except LineageError:  # of scores that will be made again
            return Sets(experiment, dict.fromkeys(experiment.keys, size))
        experiment = experiment.now({SERIES: series})
        drawn = self._as_drawn(experiment)
        there = {
            key: ids
            for key, (ids, version) in drawn.items()
            if version == experiment.versions.get(key)
        }
        todo = [key for key in experiment.keys if key not in there]
        drawing = Drawing(tables | {SERIES: series}, study, models, self.warehouse)
        new = {key: rows["example_id"].tolist() for key, rows in experiment.draw(todo, drawing)}
        sets = {key: there.get(key) or new[key] for key in experiment.keys}
        return Sets(experiment, {key: len(ids) for key, ids in sets.items()}, sets)

    def _as_drawn(self, experiment: Experiment) -> dict[str, tuple[list[str], int | None]]:
        """The sets that were drawn as the profile says: members in order, version of the pool."""
        name, column = experiment.samples, experiment.column
        if not self.warehouse.has_table(name):
            return {}
        rows = self.warehouse.read_table(name)
        if not {"drawing_id", "position"} <= set(rows.columns):  # by an earlier version
            return {}
        rows = rows[rows["drawing_id"] == experiment.drawing_id(self.study)]
        if "pool_version" not in rows:
            rows = rows.assign(pool_version=1 if experiment.series else None)
        return {
            str(key): (members["example_id"].tolist(), members["pool_version"].iloc[0])
            for key, members in rows.sort_values("position").groupby(column)
        }

    def _later(self) -> list[Experiment]:
        study = self.study
        found: list[tuple[object, Callable[[Study], Experiment]]] = [
            (study.univariate, univariate_experiment),
            (study.selection.size == "searched", size_experiment),
            (study.validation, validation_experiment),
        ]
        return [*round_experiments(study), *(of(study) for wanted, of in found if wanted)]

    def _drawn(self, experiment: Experiment, settled: bool) -> "Sets":
        """The sets of an experiment that are drawn by scores, or by the rule.

        Args:
            settled: nothing that they are drawn by will change in this run.
        """
        pool = len(self._ids(experiment.pool) or ())
        sizes = {key: sizes_of(experiment, self.study, pool)[key] for key in experiment.keys}
        made_from = [name for name in experiment.made_from if self.warehouse.has_table(name)]
        if not settled or len(made_from) < len(experiment.made_from):
            return Sets(experiment, sizes)
        told = {name: self.warehouse.read_table(name) for name in experiment.told_by}
        if not (experiment := experiment.now(told)).keys:  # behind a gate that is shut
            return Sets(experiment, {}, {})
        contents = [stored_version(name, self.warehouse) for name in made_from]
        version = fingerprint(experiment.drawing_id(self.study), contents)
        if not self.warehouse.has_table(experiment.samples):
            return Sets(experiment, sizes)
        rows = self.warehouse.read_table(experiment.samples)
        current = set(rows.loc[rows["version"] == version, experiment.column].astype(str))
        drawn = {k: v[0] for k, v in self._as_drawn(experiment).items() if k in current}
        if set(experiment.keys) <= set(drawn):
            members = {key: drawn[key] for key in experiment.keys}
            return Sets(experiment, {k: len(v) for k, v in members.items()}, members)
        return Sets(experiment, sizes)

    def _trials(self, sets: "Sets") -> list[Work]:
        """The finetunes of an experiment, their losses, and what else is measured of them."""
        experiment, study = sets.experiment, self.study
        epochs, count = study.finetuning.epochs, len(sets.keys)
        why = "" if sets.sets is not None else "which sets these are is not known yet"
        if (trials := self._trial_ids(sets)) is None:
            training = self._unknown(experiment.adapters, "training", "finetunes", count, why)
            training = replace(training, size=epochs * sum(sets.sizes.values()))
        else:
            distinct = {trials[key]: sets.sizes[key] for key in sets.keys}
            left = [n for trial, n in distinct.items() if trial not in self.manifests]
            there = len(distinct) - len(left)
            size = epochs * sum(left)
            training = Work(
                experiment.adapters, "training", "finetunes", len(distinct), there, size=size
            )
        more = of_measures(experiment, trials, study, self.warehouse, self._base)
        return [training, *self._losses(experiment, trials, count, why), *more]

    def _trial_ids(self, sets: "Sets") -> dict[str, str] | None:
        """The trial of each key; None where sets or base are not known."""
        if sets.sets is None or (base := self._base) is None:
            return None
        return {
            key: Finetune(key, seed_of(key), pd.DataFrame({"example_id": ids})).trial_id(
                self.study, base
            )
            for key, ids in sets.sets.items()
        }

    @cached_property
    def _base(self) -> str | None:
        """The base model's fingerprint; None where it is out of reach."""
        return None if self.no_base else self.gpu.base_fingerprint(self.study)

    def _losses(
        self, experiment: Experiment, trials: Mapping[str, str] | None, count: int, why: str
    ) -> list[Work]:
        """Evaluations of the experiment's finetunes; of the first experiment, the base's too."""
        evaluating = partial(self._unknown, kind="evaluating", unit="evaluations")
        first = experiment.series is not None
        if self._base is None or self._evaluation is None:
            base = evaluating("base_losses", most=1)
        else:
            base = self._evaluated(
                "base_losses", {base_key(self.study, self.gpu, self._evaluation)}
            )
        if trials is None or self._evaluation is None:
            own = evaluating(experiment.losses, most=count, note=why)
        else:
            keys = {fingerprint(trial, self._evaluation) for trial in trials.values()}
            own = self._evaluated(experiment.losses, keys)
        return [base, own] if first else [own]

    def _second_losses(
        self, experiment: Experiment, trials: Mapping[str, str] | None
    ) -> list[Work]:
        """Evaluations on the second set, where the study has one."""
        if self.study.data.second_evaluation is None:
            return []
        evaluation = self._evaluation_of(SECOND)
        if trials is None or evaluation is None:
            count = len(experiment.keys)
            return [self._unknown("second_losses", "evaluating", "evaluations", count)]
        keys = {fingerprint(trial, evaluation) for trial in trials.values()}
        return [self._evaluated("second_losses", keys)]

    @cached_property
    def _evaluation(self) -> str | None:
        return self._evaluation_of("eval_set")

    def _evaluation_of(self, name: str) -> str | None:
        """The part of an evaluation's key that all trials share; None where it is not known."""
        if not self.warehouse.has_table(name) or name in self.changed:
            return None
        rows = evaluation_rows(self.warehouse.read_table(name), self.study.evaluation)
        return evaluation_fingerprint(rows, self.study)

    @cached_property
    def _measured(self) -> set[str]:
        """The keys of all evaluations that are there."""
        return there(self.warehouse, LOSSES, "fingerprint")

    def _evaluated(self, asset: str, keys: set[str]) -> Work:
        found = len(keys & self._measured)
        total = len(keys)
        return Work(asset, "evaluating", "evaluations", total, found, size=total - found)

    def _unknown(self, asset: str, kind: Kind, unit: str, most: int | None, note: str = "") -> Work:
        """What is at most so much, since the keys of what is there cannot be known yet."""
        return Work(asset, kind, unit, most, at_most=True, size=most or 0, note=note)

    def _ids(self, table: str) -> list[str] | None:
        if not self.warehouse.has_table(table):
            return None
        return self.warehouse.read_table(table, ["example_id"])["example_id"].tolist()


@dataclass(frozen=True)
class Sets:
    """The sets of an experiment: the size of each by its key, and the members where known."""

    experiment: Experiment
    sizes: Mapping[str, int]
    sets: Mapping[str, list[str]] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.sizes)

    @property
    def members(self) -> list[str] | None:
        """All examples that some set holds, each once."""
        if self.sets is None:
            return None
        return list(dict.fromkeys(i for ids in self.sets.values() for i in ids))


def sizes_of(experiment: Experiment, study: Study, pool: int = 0) -> dict[str, int]:
    """How many examples each set of an experiment will hold, as the profile says.

    Args:
        pool: examples of the pool that sets are chosen from, where one is all of it. A set of as
            many tokens as another counts as as many examples.
    """
    if experiment.name == "validation" and study.validation is not None:
        arms = arms_of(study.validation, study.selection)
        return {key: arm.size or pool for key, arm in arms.items()}
    if experiment.name == "sizes":
        return {key: int(key.split("-")[1]) for key in experiment.keys}
    size = study.mixtures.size
    if experiment.name == "univariate" and study.univariate is not None:
        size = study.univariate.size or size
    return dict.fromkeys(experiment.keys, size)


def told_files(sources: Sequence[DataSource]) -> str:
    """How much there is to read, in words, from the names and sizes of the files alone."""
    count = size = hubs = 0
    for source in sources:
        if source.path is None:
            hubs += 1
            continue
        try:
            files = list(source_files(source))
            size += sum(path.stat().st_size for path in files if path.is_file())
        except (SourceError, ProfileError) as error:
            return str(error)
        count += len(files)
    counted = "1 file" if count == 1 else f"{count} files"
    parts = [f"{counted}, {bytes_shown(size)}"] if count else []
    parts += [f"{hubs} hub datasets"] if hubs else []
    return " and ".join(parts)
