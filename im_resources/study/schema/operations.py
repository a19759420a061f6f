"""How a study lives on: what happens when its data grows."""

from typing import Annotated

from pydantic import Field

from im_resources.study.schema.base import Positive, Settings


class RefitSettings(Settings):
    """What follows when the candidate pool has a new version."""

    new_seeds: Annotated[int, Field(ge=0, le=10_000)] = Field(
        8,
        description="Mixtures drawn from a new version of the candidate pool, chosen to tell most "
        "beside those measured already (D-optimal); 0: none",
    )
    fresh_days: Positive = Field(
        8,
        description="With automation: days after which rule and selections count as overdue, a "
        "little more than lies between two refits",
    )
