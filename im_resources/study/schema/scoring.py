"""Which indicators there are."""

from typing import Any, Literal

from pydantic import Field, field_validator

from im_resources.study.schema.base import Name, Positive, Settings, expanded


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
        2048,
        description="Tokens in a forward pass, padding included: memory and speed, not the result",
    )
    chunk: Positive = Field(
        256, description="Examples scored between two writes to the cache: what a kill may lose"
    )

    @field_validator("indicators", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return expanded(value, "backend")
