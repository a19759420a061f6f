"""Rounds of fitting, selecting and finetuning: a part that a profile may leave out."""

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from im_resources.study.schema.base import Name, Settings, expanded
from im_resources.study.schema.selection import StrategySettings


class MiningSettings(Settings):
    """Rounds of fitting a rule, finetuning on what it selects, and fitting it again with these."""

    rounds: Annotated[int, Field(ge=1, le=9)] = Field(
        3,
        description="Rounds at most. The second is always made; each further one while the rule's "
        "error where it selects falls",
    )
    strategies: dict[Name, StrategySettings] = Field(
        default_factory=lambda: {
            "rule": StrategySettings(strategy="rule"),
            "random": StrategySettings(strategy="random"),
        },
        description="What is finetuned on in a round: selections of `mixtures.size` candidates. "
        "`rule`, the round's own, has to be among them",
    )
    seeds: Annotated[int, Field(ge=1, le=1000)] = Field(
        3,
        description="Finetunes of each strategy in a round. Each selects from a part of the "
        "candidates of its own; of one nothing is known about its spread",
    )

    @field_validator("strategies", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return expanded(value, "strategy")

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in ("rule", "random"):
            found = self.strategies.get(name)
            if found is None and name == "rule":
                raise ValueError("`strategies` needs `rule: rule`, what the rounds are about")
            if found is not None and found.strategy != name:
                raise ValueError(
                    f"strategies.{name}: its strategy is {found.strategy!r}, and has to be "
                    f"{name!r}; give this one another name"
                )
        for name, arm in self.strategies.items():
            if arm.strategy == "random" and name != "random":
                raise ValueError(f"strategies.{name}: there is one random arm, called `random`")
        return self
