"""Whether rule and selection are to be believed: parts that a profile may leave out."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from im_resources.study.schema.base import Name, Positive, SampleSeed, Settings, Take, expanded
from im_resources.study.schema.selection import StrategySettings


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


Reference = Literal["tokens", "full_pool", "base"]


class ValidationSettings(Settings):
    """Which selections are finetuned on, to see whether they are better than random ones."""

    ADDED: ClassVar[Mapping[str, Any]] = {"references": (), "tokens_of": None}

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
        3,
        description="Finetunes of each strategy. Each selects from a part of the pool of its own, "
        "so that another subset's effect is in their spread: the pool is cut into so many parts",
    )
    random_seeds: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None, description="Random subsets; default: 2 × seeds, since all are compared with them"
    )
    deciles: Annotated[int, Field(ge=0, le=100)] = Field(
        10, description="Equal slices of the pool by the rule's value, each finetuned on; 0: none"
    )
    noise_repeats: Annotated[int, Field(ge=2, le=1000)] = Field(
        3,
        description="Finetunes of one subset that differ in their seed only: of a random one, of "
        "the selection, and of the examples that the rule ranks worst",
    )

    references: tuple[Reference, ...] = Field(
        (),
        description="What strategies are compared with beside random subsets of as many examples. "
        "tokens: random subsets of as many training tokens; full_pool: all of the pool, finetuned "
        "on noise_repeats times, which costs much; base: the model without finetuning",
    )
    tokens_of: Name | None = Field(
        None,
        description="Strategy whose tokens the reference `tokens` has; default: the one that "
        "selects as `selection` does, else `rule`",
    )

    @field_validator("strategies", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return expanded(value, "strategy")

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
            if re.fullmatch(r"noise(-.*)?|worst|size|decile-\d+", name):
                raise ValueError(f"strategies.{name}: a name that the validation uses itself")
            if name in self.references:
                raise ValueError(f"strategies.{name}: a name of `references` that is asked for too")
            if arm.strategy == "random" and name != "random":
                raise ValueError(f"strategies.{name}: there is one random arm, called `random`")
        if self.tokens_of is not None and (
            self.tokens_of not in self.strategies or self.tokens_of == "random"
        ):
            known = ", ".join(name for name in self.strategies if name != "random")
            raise ValueError(f"tokens_of: {self.tokens_of!r} is no strategy that selects ({known})")
        if len(set(self.references)) < len(self.references):
            raise ValueError("references: each at most once")
        return self


class JudgeSettings(Settings):
    """A judge that compares the answers of two finetuned models (paper: gpt-3.5-turbo, gpt-4), and
    rates examples where an indicator asks it to."""

    ADDED: ClassVar[Mapping[str, Any]] = {"take": "first", "sample_seed": 0, "seeds": 1}

    backend: Literal["openai", "local"] = Field(
        "local", description="openai: any endpoint of that API; local: the study's base model"
    )
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+(/[^\s?#]*)?$")] | None = Field(
        None, description="openai: the endpoint, e.g. http://127.0.0.1:8000/v1"
    )
    model: str | None = Field(None, description="openai: the endpoint's name of the judging model")
    key_variable: str = Field("OPENAI_API_KEY", description="Environment variable with the key")
    first: Name = Field("rule", description="Arm of the validation whose answers are judged")
    second: Name = Field("random", description="Arm whose answers they are judged against")
    seeds: Positive = Field(
        2,
        description="Finetunes of each arm whose answers are judged, at most as many as both have; "
        "of one nothing can be told",
    )
    instructions: Positive = Field(
        40, description="Evaluation instructions that are answered, those that `take` says"
    )
    take: Take = Field(
        "sample",
        description="Which instructions. sample: by a hash of content and seed; first: those that "
        "stand first in the set",
    )
    sample_seed: SampleSeed = Field(0, description="Another seed is another sample")
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
