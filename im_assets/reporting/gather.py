"""Reads what the report shows from the warehouse: tables that are there, with all their columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from im_assets.candidates.languages import CONFIDENCE, LANGUAGE
from im_assets.candidates.tracing import PLACE
from im_assets.common.cuts import TABLE as CUTS
from im_assets.common.versions import content_version
from im_assets.experiments.holdout import split_of
from im_assets.own_runs import members_of
from im_assets.rule.document import load_rule
from im_assets.rule.model import Rule
from im_assets.rule.target import Target, target_measure
from im_assets.scoring.cached import cached_scores
from im_assets.selection.chance import refusal
from im_assets.selection.composition import Composition, composition_of
from im_assets.selection.reach import reach
from im_assets.validation.registering import Registration, analysis_of, registration
from im_resources.study import Study, fingerprint
from im_resources.warehouse import Warehouse

# Whole tables, each with the columns that the report needs of it. Those of the loss stand for those
# of the rule's target, whatever that is (see Gathered.columns).
COLUMNS: dict[str, Sequence[str]] = {
    "quality_rule": ("term", "rule_id", "document"),
    "indicator_table": (
        "experiment", "partition", "n_examples", "loss", "log_loss", "base_id", "evaluation_id",
        "transform",
    ),
    "measure_agreement": ("measure", "spearman", "low", "high", "n", "verdict", "note"),
    "rule_evidence": (
        "section", "item", "x", "value", "low", "high", "p", "same_sign", "leverage",
        "cooks_distance", "goal", "noise_sds", "verdict", "note", "rule_id",
    ),
    "univariate_bins": ("indicator", "bin", "examples", "mean", "scaled_mean", "loss", "log_loss"),
    "univariate_study": (
        "indicator", "bins", "pearson", "pearson_low", "pearson_high", "spearman",
        "spearman_low", "spearman_high", "paper_sign", "agrees", "note",
    ),
    "noise_floor": (
        "measure", "source", "place", "size", "finetunes", "mean", "sd", "sd_low", "sd_high",
        "signal_to_noise", "signal_to_noise_low", "signal_to_noise_high",
    ),
    "selection_validation": (
        "strategy", "size", "against", "finetunes", "loss", "loss_low", "loss_high", "difference",
        "difference_low", "difference_high", "finetune_sd", "instruction_sd", "detectable",
        "noise_units", "verdict", "rule_id",
    ),
    "validation_runs": ("arm", "kind", "strategy", "size", "seed", "loss", "rule_id"),
    "selection_costs": (
        "strategy", "size", "loss", "scoring_flop", "rule_flop", "training_flop", "total_flop",
        "training_seconds", "rule_seconds", "break_even_examples", "note", "rule_id",
    ),
    "second_validation": (
        "strategy", "size", "against", "finetunes", "loss", "difference", "difference_low",
        "difference_high", "verdict", "instructions", "rule_id",
    ),
    "source_shares": (
        "source", "examples", "own_share", "effect", "effect_low", "effect_high", "verdict",
        "proposed_share", "repeated", "gain", "gain_low", "gain_high", "mixtures", "r2_left_out",
        "curved", "note",
    ),
    "mining_rounds": (
        "round", "points", "rule_id", "formula", "sets", "rmse", "rmse_low", "rmse_high",
        "rule_rmse", "change", "change_low", "change_high", "verdict", "less_random",
        "less_random_low", "less_random_high", "stopped", "why",
    ),
    "registered_analysis": ("registered_at", "analysis_id", "analysis", "trials_there"),
    "rule_deciles": (
        "decile", "predicted", "loss", "log_loss", "spearman", "spearman_low", "spearman_high",
        "rule_id",
    ),
    "pairwise_judge": (
        "eval_id", "seed", "order_1", "order_2", "outcome", "judge", "problem", "rule_id",
    ),
    "size_search": ("method", "trial", "size", "search_loss", "report_loss", "chosen", "rule_id"),
    "proxy_transfer": (
        "item", "measure", "value", "low", "high", "n", "goal", "verdict", "note",
    ),
}  # fmt: skip
SELECTION = ("rank", "example_id", "instruction", "input", "output", "category",
             "predicted_log_loss", "rule_id")  # fmt: skip
TEXTS = ("instruction", "input", "output")  # read only for a report with rows
ANSWERS = ("first_answer", "second_answer")  # not shown
# Of a study that finetunes nothing there is no other table; of its name there may be, from before.
READY = {"quality_rule"}
OF_RUNS = {"quality_rule", "indicator_table", "rule_evidence", "source_shares"}
MEMBERS = "members"  # stands for the table with the members of the sets: see own_runs.members_of
# Counts and means over tables that may be large: the statement, and the tables that it reads.
SUMMARIES = {
    "sources": ("report_sources.sql", ("candidate_datasets", MEMBERS)),
    "quarantined": ("report_quarantined.sql", ("quarantined_examples",)),
    "evaluation": ("report_evaluation.sql", ("eval_set",)),
    "cuts": ("report_cuts.sql", (CUTS,)),
}


class ReportError(ValueError):
    """A table that cannot be reported on; names it and what it lacks."""


@dataclass(frozen=True)
class PoolTables:
    """What is there of one unseen pool; None where it has not been made."""

    examples: int | None = None
    selection: pd.DataFrame | None = field(default=None, repr=False)
    means: pd.DataFrame | None = field(default=None, repr=False)
    compositions: tuple[Composition, ...] = ()
    reach: pd.DataFrame | None = field(default=None, repr=False)
    worst: pd.DataFrame | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Gathered:
    """A study and its tables; a table that has not been made is not in ``tables``."""

    study: Study
    tables: Mapping[str, pd.DataFrame] = field(repr=False)
    pools: Mapping[str, PoolTables] = field(default_factory=dict, repr=False)
    base: float | None = None  # the target's measure of the base model itself
    points_id: str = ""  # fingerprint of indicator_table as it is now
    registration: Registration | None = None  # of the validation's analysis
    snapshot: int | None = None  # of the lake that the tables are of; None of a file

    def get(self, name: str) -> pd.DataFrame | None:
        """The table, or None where there is none or it has no row."""
        frame = self.tables.get(name)
        return frame if frame is not None and len(frame) else None

    @cached_property
    def rule(self) -> Rule | None:
        frame = self.get("quality_rule")
        return None if frame is None else load_rule(frame)

    @property
    def refused(self) -> str:
        """Why nothing is selected by the rule, in a sentence; '' where something is."""
        return "" if self.rule is None else refusal(self.study.selection, self.rule)

    @property
    def mixtures(self) -> pd.DataFrame | None:
        """The points that are mixtures, of all those the rule was fitted on."""
        frame = self.get("indicator_table")
        return None if frame is None else frame[frame["experiment"] == "mixtures"]

    @cached_property
    def target(self) -> Target:
        """What the study's rule predicts."""
        return Target.of(self.study)

    @cached_property
    def unit(self) -> str:
        """The unit of the target's measure."""
        return target_measure(self.study).unit

    def columns(self, names: Sequence[str]) -> list[str]:
        """The column names of the loss as those of the target; each once."""
        target = self.target
        words = {"loss": target.measure, "log_loss": target.column}
        words |= {f"loss_{end}": f"{target.measure}_{end}" for end in ("low", "high")}
        words["predicted_log_loss"] = target.predicted_column
        return list(dict.fromkeys(words.get(name, name) for name in names))

    def of_earlier_rule(self, frame: pd.DataFrame | None) -> bool:
        """Whether a table with a ``rule_id`` was made for another rule than there is now."""
        if frame is None or frame.empty or self.rule is None:
            return False
        return bool((frame["rule_id"] != self.rule.id).any())

    @property
    def rule_of_other_points(self) -> bool:
        """Whether the rule was fitted on other points than indicator_table holds now."""
        fitted_on = "" if self.rule is None else self.rule.points_id
        return bool(fitted_on and self.points_id) and fitted_on != self.points_id

    @property
    def indicators(self) -> list[str]:
        """The study's indicators that the mixtures have values of; without mixtures, all."""
        if self.study.fits_nothing:
            return list(self.study.scoring.indicators)
        frame = self.get("indicator_table")
        known = () if frame is None else frame.columns
        return [name for name in self.study.scoring.indicators if name in known]

    def evidence(self, section: str) -> pd.DataFrame:
        """The rows of one section of rule_evidence; none when it was not made."""
        frame = self.tables.get("rule_evidence")
        if frame is None:
            return pd.DataFrame(columns=list(COLUMNS["rule_evidence"]))
        return frame[frame["section"] == section].reset_index(drop=True)


def gather(study: Study, warehouse: Warehouse, with_rows: bool) -> Gathered:
    """Every table of the report; in a lake, all as they are at one moment.

    Args:
        with_rows: also the texts of selected examples; without, no text of the data is read.

    Raises:
        ReportError: a table lacks a column that the report needs.
    """
    if (snapshot := warehouse.snapshot()) is not None:
        warehouse = warehouse.as_of(snapshot)
    tables: dict[str, pd.DataFrame] = {}
    known = Gathered(study, tables)
    wanted = OF_RUNS if study.runs is not None else READY if study.fits_nothing else set(COLUMNS)
    for name in [name for name in COLUMNS if name in wanted]:
        columns = COLUMNS[name]
        frame = _table(warehouse, name, known.columns(columns), with_rows)
        if frame is not None:
            tables[name] = frame
    for name, (statement, needed) in SUMMARIES.items():
        names = {MEMBERS: members_of(study).asset} if MEMBERS in needed else {}
        if all(warehouse.has_table(names.get(table, table)) for table in needed):
            if name == "quarantined":
                _columns(warehouse, "quarantined_examples", ("kind",), "candidate_datasets")
            tables[name] = warehouse.query(statement, names)
    if "cuts" in tables and "indicator_table" in tables:
        tables["cuts"] = _of_points(tables["cuts"], tables["indicator_table"])
    if (languages := _languages(known, warehouse)) is not None:
        tables["languages"] = languages
    found = Gathered(study, tables)
    pools = {pool: _pool(found, pool, warehouse, with_rows) for pool in study.pools}
    points = warehouse.read_table("indicator_table") if "indicator_table" in tables else None
    points_id = "" if points is None else content_version(points)
    base, registered = _base(found, warehouse), _registration(found, warehouse)
    return Gathered(study, tables, pools, base, points_id, registered, snapshot)


def _registration(found: Gathered, warehouse: Warehouse) -> Registration | None:
    """Whether what was found is what was registered; None where nothing was, or by an earlier
    version, which does not say what the verdicts are of."""
    runs = found.get("validation_runs")
    if runs is None or not {"analysis_id", "trial_id"} <= set(runs.columns):
        return None
    sets = ["eval_set"]
    if found.study.data.second_evaluation is not None:
        sets.append("second_eval_set")
    analysis = analysis_of(found.study, *map(warehouse.read_table, sets))
    made_by = str(runs["analysis_id"].iloc[0])
    trials = runs["trial_id"].dropna()  # the base itself is no trial
    return registration(found.get("registered_analysis"), analysis, made_by, trials)


def _base(found: Gathered, warehouse: Warehouse) -> float | None:
    """The target's measure of the base model; None where it was not measured, or other losses were
    than those of the mixtures. Judged against itself, it wins as often as it loses."""
    measure, points = target_measure(found.study), found.get("indicator_table")
    if measure.reads == "verdicts":
        return 0.5
    name = f"base_{measure.reads}"
    rows = warehouse.read_table(name) if warehouse.has_table(name) else pd.DataFrame()
    if measure.reads == "losses" and points is not None and len(rows):
        ids = points[["base_id", "evaluation_id"]].drop_duplicates()
        if not set(rows["fingerprint"]) <= {fingerprint(*parts) for parts in ids.to_numpy()}:
            return None
    if points is not None and "part" in points and set(points["part"]) == {"fitting"}:
        fitting = split_of(warehouse.read_table("eval_set"), found.study.evaluation).fitting
        if set(points["instructions"]) != {len(fitting.eval_ids)}:
            return None  # another share is held out now
        rows = rows[rows["eval_id"].isin(fitting.eval_ids)]
    return measure.of(rows) if len(rows) else None


def _table(
    warehouse: Warehouse, name: str, columns: Sequence[str], with_rows: bool
) -> pd.DataFrame | None:
    if not warehouse.has_table(name):
        return None
    wanted = [c for c in columns if with_rows or c not in TEXTS]
    found = _columns(warehouse, name, wanted, name)
    kept = [c for c in found if c not in ANSWERS and (with_rows or c not in TEXTS)]
    return warehouse.read_table(name, kept)


def _columns(warehouse: Warehouse, table: str, wanted: Sequence[str], asset: str) -> list[str]:
    """The table's columns. Raises ReportError when one that is wanted is not among them."""
    columns = list(warehouse.query(f'SELECT * FROM "{table}" LIMIT 0').columns)
    if missing := [c for c in wanted if c not in columns]:
        raise ReportError(
            f"table {table!r} lacks the column(s) {', '.join(missing)}; it has: "
            f"{', '.join(columns)}; materialize {asset} again"
        )
    return columns


def _pool(found: Gathered, pool: str, warehouse: Warehouse, with_rows: bool) -> PoolTables:
    dataset, scores, selection = (f"{pool}_{kind}" for kind in ("dataset", "scores", "selection"))
    examples = None
    if warehouse.has_table(dataset):
        examples = int(warehouse.query("report_pool.sql", {"dataset": dataset})["examples"][0])
    columns = found.columns(SELECTION)
    selected, means = _table(warehouse, selection, columns, with_rows), None
    composed: list[Composition] = []
    if selected is not None and examples is not None:
        _columns(warehouse, dataset, (LANGUAGE,), dataset)
        composed = composition_of(dataset, selected["example_id"], warehouse)
    if selected is not None and warehouse.has_table(scores):
        names = {"scores": scores, "selection": selection}
        means = warehouse.query("report_selected_means.sql", names)
    covered = None if selected is None else _reach(found, pool, selected, warehouse)
    worst = _worst_of_pool(found, pool, warehouse) if with_rows else None
    return PoolTables(examples, selected, means, tuple(composed), covered, worst)


def _reach(
    found: Gathered, pool: str, selected: pd.DataFrame, warehouse: Warehouse
) -> pd.DataFrame | None:
    """How far the selection lies outside of what the rule was fitted on; None where the indicators
    are not there, or the selection is of another rule."""
    name, rule = f"{pool}_indicators", found.rule
    if rule is None or not warehouse.has_table(name) or found.of_earlier_rule(selected):
        return None
    _columns(warehouse, name, rule.indicators, name)
    return reach(rule, warehouse.read_table(name, rule.indicators), selected)


def _of_points(cuts: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """What was cut, of the mixtures without those that are no points any more."""
    mixtures = points.loc[points["experiment"] == "mixtures", "partition"]
    other = cuts["asset"] != "finetuned_adapters"
    return cuts[other | cuts["partition"].isin(mixtures)].reset_index(drop=True)


def _languages(found: Gathered, warehouse: Warehouse) -> pd.DataFrame | None:
    """The languages of every pool that there is, by source."""
    names = ("candidate_datasets", *(f"{pool}_dataset" for pool in found.study.pools))
    parts = []
    for name in filter(warehouse.has_table, names):
        _columns(warehouse, name, (LANGUAGE, CONFIDENCE), name)
        rows = warehouse.query("languages.sql", {"dataset": name})
        rows["share"] = rows["examples"] / rows.groupby("source")["examples"].transform("sum")
        parts.append(rows.assign(dataset=name))
    return pd.concat(parts, ignore_index=True) if parts else None


def _worst_of_pool(
    found: Gathered, pool: str, warehouse: Warehouse, count: int = 5
) -> pd.DataFrame | None:
    """The examples of the pool with the worst rule value, worst first.

    None when the rule reads an indicator that single examples have no score of (KNN-i): its value
    over the pool is then not in the warehouse.
    """
    rule = found.rule
    needed = (f"{pool}_scores", f"{pool}_dataset")
    if rule is None or not rule.indicators or not all(map(warehouse.has_table, needed)):
        return None
    made = warehouse.query("SELECT DISTINCT indicator, fingerprint FROM query_table($scores)",
                           {"scores": needed[0]})  # fmt: skip
    keys = dict(zip(made["indicator"], made["fingerprint"], strict=True))
    if not set(rule.indicators) <= set(keys):
        return None
    keys = {name: keys[name] for name in rule.indicators}
    ids = warehouse.read_table(needed[1], ["example_id"])["example_id"]
    values_of = cached_scores(ids, keys, warehouse, needed[0])
    wide = pd.DataFrame(values_of, columns=list(keys), index=pd.Index(ids)).dropna()
    values = {
        rule.predicts.predicted_column: rule.predict_examples(wide),
        "badness": rule.badness(wide),
    }
    ranked = wide.assign(**values).reset_index()
    ranked = ranked.sort_values(["badness", "example_id"], ignore_index=True)
    ranked = ranked.assign(rank=ranked.index + 1).iloc[::-1].head(count)
    known = _columns(warehouse, needed[1], (), needed[1])
    texts = warehouse.read_table(
        needed[1],
        ["example_id", *TEXTS, "category", *(c for c in PLACE if c in known)],
        where={"example_id": ranked["example_id"].tolist()},
    )
    return ranked.merge(texts, on="example_id", how="inner", validate="1:1")
