"""How a study lives on: what happens when its data grows, and who is told when something fails."""

from typing import Annotated, Literal

from pydantic import Field

from im_resources.study.schema.base import Positive, Settings


class RefitSettings(Settings):
    """What follows when the candidate pool has a new version."""

    new_seeds: Annotated[int, Field(ge=0, le=10_000)] = Field(
        8,
        description="Mixtures drawn from a new version of the candidate pool, chosen to tell most "
        "beside those measured already (D-optimal); 0: none",
    )


class AlertSettings(Settings):
    """Where failures are posted: runs, checks, and whatever stopped ticking."""

    webhook: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        "IM_WEBHOOK_URL",
        description="Environment variable with the address that alerts are posted to (Slack's "
        "incoming webhooks, or any that takes JSON). The address is a secret: never write it here",
    )
    ui: Annotated[str, Field(pattern=r"^https?://[^\s@]+[^\s@/]$")] = Field(
        "http://127.0.0.1:3000", description="Address of the Dagster UI, for links to a run"
    )
    severity: Literal["WARN", "ERROR"] = Field(
        "WARN", description="Failed checks that are posted: all (WARN), or those that are errors"
    )
    silence_minutes: Positive = Field(
        10, description="A daemon, sensor or schedule that is overdue by this long has stopped"
    )
    timeout: Annotated[float, Field(gt=0, le=10)] = Field(
        5.0, description="Seconds that the webhook may take; a failed alert is tried again later"
    )
