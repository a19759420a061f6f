"""A whole study."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, model_validator

from im_resources.study.places import history_name, state_home
from im_resources.study.schema.base import Name, Settings
from im_resources.study.schema.data import CleaningSettings, DataSettings
from im_resources.study.schema.evidence import (
    JudgeSettings,
    TransferSettings,
    UnivariateSettings,
    ValidationSettings,
)
from im_resources.study.schema.experiments import (
    EvaluationSettings,
    FinetuningSettings,
    MixtureSettings,
    ProposalSettings,
)
from im_resources.study.schema.mining import MiningSettings
from im_resources.study.schema.models import ModelSettings
from im_resources.study.schema.operations import AlertSettings, LandingSettings, RefitSettings
from im_resources.study.schema.rule import RuleSettings, TargetSettings
from im_resources.study.schema.runs import RunsSettings
from im_resources.study.schema.scoring import ScoringSettings
from im_resources.study.schema.selection import SelectionSettings

# Columns of the tables in which indicators are columns too: one of that name would be overwritten.
NOT_INDICATORS = frozenset({
    "experiment", "partition", "n_examples", "largest_source", "set_id", "trial_id",
    "settings_id", "base_id", "evaluation_id", "answers_id", "verdicts_id", "values_id", "seed",
    "chosen", "rank", "example_id", "source", "line", "instruction", "input", "output",
    "category", "strategy", "rule_id", "token_loss", "instruction_loss", "loss", "log_loss",
    "drawing_id", "judge_id", "turns", "not_text", "transform", "beyond_chance", "part",
    "instructions", "measured_id",
})  # fmt: skip
# Measures of those tables that a column of own runs may be called after.
MEASURES = {"loss", "log_loss", "token_loss", "instruction_loss"}


class Study(Settings):
    """One study: the profile file, validated."""

    name: Name = Field(
        description="The study's own folder below $IM_HOME: results, adapters, Dagster's history"
    )
    label: str = Field("", description="Shown beside results, e.g. 'demo-scale'")
    data: DataSettings = Field(description="Where the examples come from")
    models: ModelSettings = Field(description="The models, and how they read a prompt")
    cleaning: CleaningSettings = Field(
        CleaningSettings(), description="Which rows go into quarantine"
    )
    runs: RunsSettings | None = Field(
        None,
        description="Left out: the study makes its own finetunes. Given: the rule is fitted on "
        "these, nothing is finetuned, and mixtures, finetuning and evaluation are not read",
    )
    mixtures: MixtureSettings = Field(
        MixtureSettings(), description="The random mixtures that the rule is fitted on"
    )
    finetuning: FinetuningSettings = Field(
        FinetuningSettings(), description="How every finetune of the study is made"
    )
    evaluation: EvaluationSettings = Field(
        EvaluationSettings(), description="How every finetune of the study is measured"
    )
    scoring: ScoringSettings = Field(description="The indicators, and what they are computed of")
    rule: RuleSettings = Field(RuleSettings(), description="The regression")
    selection: SelectionSettings = Field(
        SelectionSettings(), description="What is selected from the unseen pool"
    )
    univariate: UnivariateSettings | None = Field(None, description="Left out: no univariate study")
    validation: ValidationSettings | None = Field(
        None, description="Left out: selections are not finetuned on"
    )
    mining: MiningSettings | None = Field(
        None, description="Left out: the rule is not measured where it selects, nor learns there"
    )
    proposal: ProposalSettings = Field(
        ProposalSettings(), description="Which shares of the candidate sources are proposed"
    )
    refit: RefitSettings = Field(
        RefitSettings(), description="What follows when the candidate pool has a new version"
    )
    landing: LandingSettings | None = Field(
        None, description="Left out: no folder is watched for new data"
    )
    automation: bool = Field(
        False,
        description="Whether sensors and schedules are on from the start: what has landed is "
        "refitted, what has changed is followed up, failures are posted",
    )
    judge: JudgeSettings | None = Field(
        None, description="Left out: no pairwise judge, and no example is rated"
    )
    transfer: TransferSettings | None = Field(None, description="Left out: no proxy transfer")
    alerts: AlertSettings | None = Field(None, description="Left out: no alerts")
    plugins: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")], ...] = Field(
        (),
        description="Modules that add indicators, strategies, formats, …: installed ones, or files "
        "beside the profile",
    )
    _profile_folders: tuple[Path, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _own_columns(self) -> Self:
        """Every indicator has a column of its own, whose name the warehouse takes in any case."""
        measures = {*self.evaluation.measures, self.target.measure}
        columns = {f"{scale}{measure}" for measure in measures for scale in ("", "log_", "logit_")}
        taken = NOT_INDICATORS | {name.lower() for name in columns}
        for name in self.scoring.indicators:
            if name.lower() in taken or name.lower().startswith("predicted_"):
                raise ValueError(
                    f"scoring.indicators: {name!r} is the name of another column of the tables "
                    "that indicators are in, or of another indicator in other case; give it "
                    "another name"
                )
            taken |= {name.lower()}
        return self

    @model_validator(mode="after")
    def _own_runs(self) -> Self:
        """A rule of runs that were made elsewhere is fitted on these and on nothing else."""
        if self.runs is None:
            for name in ("base", "embedding"):
                if getattr(self.models, name) is None:
                    raise ValueError(f"models.{name} is missing, this setting has no default")
            return self
        if not self.data.candidates:
            raise ValueError(
                "data.candidates is missing: the examples of `runs` are looked up in them; a "
                "pattern such as path: runs/*.jsonl names the files of all runs"
            )
        if self.rule.source != "fitted":
            raise ValueError(f"rule.source: {self.rule.source} needs no `runs`; leave one out")
        if self.rule.points != ("mixtures",):
            raise ValueError("rule.points: a rule is fitted on `runs` alone; leave it out")
        if self.rule.target != TargetSettings():
            raise ValueError(
                "rule.target: with `runs`, the rule predicts runs.measure; leave rule.target out"
            )
        name = self.runs.measure.lower()
        if name in (NOT_INDICATORS - MEASURES) | {"run", "position", "file", "examples"}:
            raise ValueError(
                f"runs.measure: {name!r} is the name of another column of the tables; rename the "
                "column in the CSV"
            )
        return self

    @model_validator(mode="after")
    def _ready_rule(self) -> Self:
        """Without finetunes of its own, no part of the study needs them; without candidates the
        rule is a ready one."""
        if not self.trains_nothing:
            if self.data.evaluation is None:
                raise ValueError("data.evaluation is missing: what every finetune is measured on")
            return self
        if self.fits_nothing and self.rule.source == "fitted":
            raise ValueError(
                "data.candidates is missing: a rule is fitted on them; give at least 1 source, or "
                "apply a ready rule (rule.source: published_v1, published_v2 or file)"
            )
        parts = ("univariate", "validation", "mining", "transfer")
        asked = [name for name in parts if getattr(self, name) is not None]
        asked += ["selection.size: searched"] if self.selection.size == "searched" else []
        if asked:
            if self.runs is not None:
                raise ValueError(
                    f"{' and '.join(asked)}: needs finetunes, and a study of your own `runs` makes "
                    f"none; leave it out (inherited: `{asked[0].partition(':')[0]}: ~`)"
                )
            raise ValueError(
                f"{' and '.join(asked)}: needs finetunes, and a study without data.candidates "
                "makes none; leave it out, or give candidates"
            )
        return self

    @model_validator(mode="after")
    def _tilted_mixtures(self) -> Self:
        """Tilted mixtures are drawn by scores, which have to be there before them."""
        settings = self.mixtures
        if settings.kind == "random" or self.trains_nothing:
            return self
        if self.scoring.score != "all":
            raise ValueError(
                f"mixtures.kind: {settings.kind} draws examples by their indicators, and "
                "scoring.score: members scores only what was drawn; set scoring.score: all"
            )
        if unknown := [n for n in settings.tilt or () if n not in self.scoring.indicators]:
            known = ", ".join(self.scoring.indicators)
            raise ValueError(
                f"mixtures.tilt: {', '.join(unknown)} is none of scoring.indicators ({known})"
            )
        return self

    @model_validator(mode="after")
    def _measured_points(self) -> Self:
        if self.rule.points[0] != "mixtures" or len(set(self.rule.points)) < len(self.rule.points):
            raise ValueError("`rule.points` has to begin with mixtures and name each once")
        blocks = {"univariate": "univariate", "validation": "validation", "rounds": "mining"}
        for name, block in blocks.items():
            if name in self.rule.points and getattr(self, block) is None:
                what = "a block" if name == block else f"which need the block {block}"
                raise ValueError(f"`rule.points` names {name}, {what} that is not set")
        return self

    @model_validator(mode="after")
    def _rounds(self) -> Self:
        """Rounds select from all candidates, by rules that are fitted."""
        if self.mining is None or self.fits_nothing:
            return self
        if self.scoring.score != "all":
            raise ValueError(
                "mining: its rounds select from all candidates by their indicators, and "
                "scoring.score: members scores only what was drawn; set scoring.score: all"
            )
        if self.rule.source != "fitted":
            raise ValueError(
                f"mining: every round fits a rule, and rule.source: {self.rule.source} fits none; "
                "set rule.source: fitted, or leave `mining` out"
            )
        return self

    @model_validator(mode="after")
    def _second_evaluation(self) -> Self:
        if self.data.second_evaluation is not None and self.validation is None:
            raise ValueError(
                "data.second_evaluation: the arms of `validation` are measured on it, and that is "
                "not set; leave one out, or set the other"
            )
        return self

    @model_validator(mode="after")
    def _judged_arms(self) -> Self:
        if self.judge is None:
            return self
        if self.validation is None:
            return self  # who else asks it is known to registries: see im_assets.judging.askers
        for arm in (self.judge.first, self.judge.second):
            if arm not in self.validation.strategies:
                known = ", ".join(self.validation.strategies)
                raise ValueError(f"judge: {arm!r} is no arm of validation.strategies ({known})")
        had = self.validation.seeds
        if "random" in (self.judge.first, self.judge.second):
            had = min(had, self.validation.random_seeds or had)
        if self.judge.seeds > had:
            raise ValueError(
                f"judge.seeds is {self.judge.seeds}, and one of the arms has {had} finetunes; "
                "lower it, or raise validation.seeds or validation.random_seeds"
            )
        return self

    @model_validator(mode="after")
    def _landing_names(self) -> Self:
        """A file lands in the folder of one source or pool, beside that of the rejected ones."""
        if self.landing is None:
            return self
        if both := sorted(self.data.candidates.keys() & self.data.unseen.keys()):
            raise ValueError(
                f"landing: {both[0]!r} names a source and an unseen pool; a file that lands in "
                f"{both[0]}/ would be of either: give one of them another name"
            )
        if "rejected" in {*self.data.candidates, *self.data.unseen}:
            raise ValueError(
                "landing: rejected/ is the folder of what cannot be used; give the source or pool "
                "'rejected' another name"
            )
        return self

    @property
    def profile_folders(self) -> tuple[Path, ...]:
        """Folders of the profile and of those that it extends; none of a study made in code."""
        return self._profile_folders

    @cached_property
    def folder(self) -> Path:
        """Where this study keeps its state: ``$IM_HOME/<name>`` (default ``var/<name>``)."""
        return state_home() / self.name

    @property
    def fits_nothing(self) -> bool:
        """Whether the study only applies a ready rule to its pools, without any finetune."""
        return not self.data.candidates

    @property
    def trains_nothing(self) -> bool:
        """Whether the study makes no finetune: it applies a ready rule, or fits one on runs that
        were made elsewhere."""
        return self.fits_nothing or self.runs is not None

    @property
    def target(self) -> TargetSettings:
        """What the rule predicts."""
        return self.rule.target if self.runs is None else self.runs.target

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the unseen pools; the first is validated and searched for a size."""
        return tuple(self.data.unseen)

    @property
    def warehouse(self) -> Path:
        """The DuckDB file with the study's tables."""
        return self.folder / "warehouse.duckdb"

    @property
    def history(self) -> Path:
        """Dagster's storage of this study: its runs, events and what is materialized."""
        return self.folder / history_name()
