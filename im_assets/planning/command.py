"""``python -m im_assets.run --plan``: the plan of a study, from what its folder holds."""

import os
from pathlib import Path

import dagster as dg

from im_assets.doctor.history import on_disk
from im_assets.planning.history import changed, code_versions, ran
from im_assets.planning.planning import plan_of
from im_assets.planning.probe import CannotProbe, kept_probe, measure, no_base
from im_assets.planning.rates import Ran
from im_assets.planning.work import Plan
from im_resources.deployment.making import adapters_of, gpu_of, warehouse_of
from im_resources.study import Study
from im_resources.study.environment import STATE


def plan_now(study: Study, probe: bool = True) -> Plan:
    """The plan, measured where nothing is known of the times yet. Nothing is written but the
    probe.

    Args:
        probe: whether to measure.
    """
    warehouse = warehouse_of(study)
    store, gpu = adapters_of(study), gpu_of(study)
    known = _history(study)
    plan = plan_of(study, warehouse, store, gpu, *known)
    if not probe or not plan.unmeasured:
        return plan
    said: tuple[str, ...] = ()
    try:
        measure(study, gpu, warehouse)
    except CannotProbe as error:
        said = (f"no estimate of the time: {error}",)
    return plan_of(study, warehouse, store, gpu, *known, said=said)


def probe_first(study: Study) -> str | None:
    """Measure before a study's first run, which loads the model in any case: what its plan tells
    in the UI is then told with times. Why that could not be, where it could not.
    """
    store, gpu = adapters_of(study), gpu_of(study)
    if any(store.root.glob("[!.]*")) or no_base(study) or kept_probe(study, gpu):
        return None
    try:
        measure(study, gpu, warehouse_of(study))
    except CannotProbe as error:
        return f"no estimate of the time: {error}"
    return None


def _history(study: Study) -> tuple[list[Ran], dict[str, str]]:
    """What earlier runs took, and what was changed since; nothing where nothing has run."""
    # Opening a history makes one where there is none.
    if on_disk() and not (Path(os.environ[STATE]) / "history").is_dir():
        return [], {}
    versions = code_versions(study)
    with dg.DagsterInstance.get() as instance:
        return ran(study, instance, versions), changed(study, instance, versions)
