"""How a study lives on: new data that lands, what follows when its data grows, and who is told when
something fails."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from im_resources.study.schema.base import Positive, Settings


class RefitSettings(Settings):
    """What follows when the candidate pool has a new version."""

    new_seeds: Annotated[int, Field(ge=0, le=10_000)] = Field(
        8,
        description="Mixtures drawn from a new version of the candidate pool, chosen to tell most "
        "beside those measured already (D-optimal); 0: none",
    )
    cron: str | None = Field(
        None,
        description="When to refit on what has landed, e.g. `0 3 * * 0`: Sundays at three. Left "
        "out: as soon as there is a new version",
    )
    fresh_days: Positive = Field(
        8,
        description="With automation: days after which rule and selections count as overdue, a "
        "little more than lies between two refits",
    )
    timezone: str = Field("UTC", description="Time zone of `cron`, such as Europe/Berlin")

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (
            KeyError,
            ValueError,
            OSError,
        ) as error:  # none, no name of one, or a folder of them
            raise ValueError("no time zone of the IANA database, such as Europe/Berlin") from error
        return name


class LandingSettings(Settings):
    """A folder that is watched for new data: a complete file in `<folder>/<name of a source or an
    unseen pool>/` becomes part of it. What cannot be used is moved to `<folder>/rejected/`, with
    the reason beside it."""

    folder: Annotated[str, Field(min_length=1)] = Field(
        description="A local folder, relative to the project, or a URL that fsspec knows, such as "
        "s3://bucket/landing (its package, s3fs, has to be installed); ${VARIABLES} expand"
    )
    usable_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of a file's rows that have to be readable, or it is rejected"
    )
    max_megabytes: Positive = Field(2_000, description="A larger file is rejected unread")
    settle_seconds: Positive = Field(
        30,
        description="Between two looks into the folder. A file that is the same in both is "
        "complete; one with `<file>.done` beside it is complete at once",
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
