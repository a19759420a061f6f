"""What is selected from an unseen pool."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from im_resources.study.schema.base import Positive, Settings

Stratum = Literal["source", "category", "language"]


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

    ADDED: ClassVar[Mapping[str, Any]] = {"stratify": None, "when_chance": "select"}

    strategy: str = Field("rule", description="Name of a selection strategy (docs/selection.md)")
    size: Positive | Annotated[float, Field(gt=0, lt=1)] | Literal["searched"] = Field(
        1000,
        description="Examples, a fraction of the pool, or `searched` (see `search`; paper v2: "
        "1,000 to 10,000)",
    )
    search: SearchSettings = Field(
        SearchSettings(), description="How the size is looked for, with `size: searched`"
    )
    max_share: dict[Stratum, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="Largest share of a selection that one source, category or language may have; "
        "default: any",
    )
    stratify: Stratum | None = Field(
        None,
        description="Select within each source, category or language as large a share as it has "
        "of the pool; default: over all of the pool",
    )
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Cosine similarity above which the lower-ranked of two is left out; default: "
        "none is",
    )
    when_chance: Literal["refuse", "select"] = Field(
        "refuse",
        description="What becomes of a selection by a rule that shuffled losses give as well: "
        "refuse: none is made; select: it is made, and marked",
    )
    random_draws: Positive = Field(
        200, description="Random subsets of the same size that the selection is compared with"
    )
