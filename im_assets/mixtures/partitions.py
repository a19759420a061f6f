"""The partitions of the mixtures in a Dagster instance: one a seed of the series."""

import os
from collections.abc import Sequence

import dagster as dg

from im_assets.mixtures.experiment import SERIES, mixture_experiment
from im_resources.deployment.making import warehouse_of
from im_resources.study import Study
from im_resources.study.environment import environment


def sync_partitions(instance: dg.DagsterInstance, keys: Sequence[str]) -> None:
    """Make ``keys`` the instance's partitions of the mixtures, in their order.

    A range of partitions is one run, and follows the order in which they were added. So keys out of
    order are added again; what was recorded of a partition stays, since it goes by its key.
    """
    there = instance.get_dynamic_partitions(SERIES)
    stays = 0
    while stays < min(len(there), len(keys)) and there[stays] == keys[stays]:
        stays += 1
    for key in there[stays:]:
        instance.delete_dynamic_partition(SERIES, key)
    if keys[stays:]:
        instance.add_dynamic_partitions(SERIES, list(keys[stays:]))


def sync_study(instance: dg.DagsterInstance, study: Study) -> None:
    """Make the study's seeds the instance's partitions: before a job over them, and for the UI."""
    if study.trains_nothing:
        return
    warehouse, experiment = warehouse_of(study), mixture_experiment(study)
    if warehouse.exists() and warehouse.has_table(SERIES):
        experiment = experiment.now({SERIES: warehouse.read_table(SERIES)})
    sync_partitions(instance, experiment.keys)


def main() -> None:
    """Make the seeds of the study in ``IM_PROFILE`` the partitions of its history; silent, since
    ``make env`` prints lines for a shell."""
    study, variables = environment()
    os.environ |= variables
    study.history.mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.get() as instance:
        sync_study(instance, study)


if __name__ == "__main__":
    main()
