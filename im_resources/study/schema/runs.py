"""Finetunes that were made elsewhere, as the points of a rule."""

from typing import Literal, Self

from pydantic import Field, model_validator

from im_resources.study.schema.base import Name, Settings
from im_resources.study.schema.data import DataSource, FieldMap
from im_resources.study.schema.rule import TargetSettings


class RunsSettings(Settings):
    """Finished finetunes of your own: which examples each saw, and what was measured of it
    (docs/own_runs.md)."""

    path: str = Field(
        description="CSV with one row a run: the columns run, the measure, and file or examples; "
        "relative to the project, ${VARIABLES} expand"
    )
    measure: Name = Field("loss", description="The column with what was measured of each run")
    scale: Literal["log", "logit", "identity"] | None = Field(
        None,
        description="What of it is regressed; default: that of the measure of this name "
        "(docs/extending.md), and identity where there is none",
    )
    direction: Literal["lower", "higher"] | None = Field(
        None,
        description="Which is the better data; default: that of the measure of this name; has to "
        "be given where there is none",
    )
    format: str = Field("alpaca", description="Shape of a row of the runs' files, as of a source")
    fields: FieldMap | None = Field(
        None, description="For `format: fields`: which column holds what, as of a source"
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.source_of(self.path)
        return self

    def source_of(self, path: str) -> DataSource:
        """How a run's file is read. Raises ValueError for `fields` that do not fit `format`."""
        return DataSource(path=path, format=self.format, fields=self.fields)

    @property
    def target(self) -> TargetSettings:
        """What the rule predicts."""
        return TargetSettings(measure=self.measure, scale=self.scale, direction=self.direction)
