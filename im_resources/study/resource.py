"""The study as a Dagster resource; apart, so that a profile is read without importing Dagster."""

import dagster as dg
from pydantic import Field

from im_resources.study.reading import load_study
from im_resources.study.schema import Study


class StudyResource(dg.ConfigurableResource[Study]):
    """Gives assets the study's settings, read once when the code location loads."""

    profile: str = Field(description="Name of a profile, or the path of one")

    def create_resource(self, context: dg.InitResourceContext) -> Study:
        return load_study(self.profile)
