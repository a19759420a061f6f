"""`automation` of a profile: whether sensors and schedules tick without being started by hand."""

import dagster as dg

from im_resources.study import Study


def sensor_status(study: Study) -> dg.DefaultSensorStatus:
    """What a sensor is at first; what is switched in the UI afterwards counts from then on."""
    return dg.DefaultSensorStatus.RUNNING if study.automation else dg.DefaultSensorStatus.STOPPED


def schedule_status(study: Study) -> dg.DefaultScheduleStatus:
    """The same of a schedule."""
    if study.automation:
        return dg.DefaultScheduleStatus.RUNNING
    return dg.DefaultScheduleStatus.STOPPED
