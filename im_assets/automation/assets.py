"""The definitions of this room: each module beside brings its own."""

import dagster as dg

from im_assets.automation import alerts, conditions, landing, refit
from im_resources.study import Study

MODULES = (landing, refit, conditions, alerts)


def definitions(study: Study) -> dg.Definitions:
    """Sensors, schedules and assets of every module; a module that is off brings none."""
    return dg.Definitions.merge(*(module.definitions(study) for module in MODULES))
