"""The plan of a study: counted, with what it takes."""

import shutil
from collections.abc import Mapping, Sequence

from im_assets.experiments.evaluation import evaluation_rows
from im_assets.experiments.finetuning import training_settings_id
from im_assets.planning.counting import Counting
from im_assets.planning.probe import Probe, kept_probe, no_base, out_of_reach
from im_assets.planning.rates import MEASURED, Ran, estimated, rates_of, with_disk
from im_assets.planning.work import Kind, Plan, sources_of
from im_assets.scoring.registry import chosen
from im_resources.adapter_store import AdapterError, AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

_ESTIMATED: set[Kind] = {"scoring", "training", "evaluating"}
NO_ESTIMATE = (
    "no estimate of the time: nothing was measured yet; `python -m im_assets.run --plan` does"
)


def plan_of(
    study: Study,
    warehouse: Warehouse,
    store: AdapterStore,
    gpu: GpuResource,
    ran: Sequence[Ran] = (),
    changed: Mapping[str, str] | None = None,
    said: Sequence[str] = (),
) -> Plan:
    """What a run would compute now. Nothing is computed, written or downloaded for it.

    Args:
        ran: steps of earlier runs whose figures hold.
        changed: assets that may be of another content after the run, and why.
        said: why there is no probe.
    """
    base_missing, no_scorer = no_base(study), out_of_reach(study)
    missing = [f"{reason}: no estimate is possible" for reason in no_scorer]
    try:
        manifests = {} if study.trains_nothing else store.manifests()
    except AdapterError as error:
        manifests, base_missing = {}, [*base_missing, str(error)]
        missing.append(f"which finetunes are there cannot be told: {error}")
    work = Counting(study, warehouse, gpu, manifests, base_missing, no_scorer, changed or {}).work()
    probe = None if base_missing else kept_probe(study, gpu)
    instructions, outputs = _evaluated(study, warehouse)
    mine = []
    if not base_missing:
        settings, base = training_settings_id(study), gpu.base_fingerprint(study)
        mine = [
            m for m in manifests.values() if (m.get("settings"), m.get("base")) == (settings, base)
        ]
    workers = gpu.workers
    rates = rates_of(study, probe, mine, ran, workers, instructions)
    trial = _trial_bytes(mine, probe)
    embedding = 0 if probe is None else probe.embedding_bytes
    work = [
        with_disk(estimated(w, rates, study, workers), study, trial, embedding, outputs)
        for w in work
    ]
    needed = {w.kind for w in work if w.left != 0} & _ESTIMATED
    if not missing and needed - set(rates):
        unread = [f"no estimate of the time: {reason}" for reason in base_missing]
        missing = list(said) or unread or [_unmeasured(study, probe, needed - set(rates))]
    told: dict[str, list[str]] = {}
    for kind in (kind for kind in rates if kind in needed):
        told.setdefault(rates[kind].by, []).append(kind)
    return Plan(
        study=study.name,
        work=tuple(work),
        rates=told,
        missing=tuple(missing),
        unmeasured=probe is None and not base_missing and bool(needed - set(rates)),
        changed={name: why for name, why in (changed or {}).items() if name in sources_of(study)},
        free=_free(study),
    )


def _unmeasured(study: Study, probe: Probe | None, kinds: set[Kind]) -> str:
    if probe is None:
        return NO_ESTIMATE
    if kinds == {"evaluating"}:
        return "no estimate of evaluating before the evaluation set has been read"
    used = {name for i in chosen(study.scoring) for name in i.backend.uses} - set(MEASURED)
    what = " and ".join(sorted(kinds))
    return f"no estimate of {what}: the probe does not measure {', '.join(sorted(used))}"


def _evaluated(study: Study, warehouse: Warehouse) -> tuple[int | None, int]:
    """Instructions and outputs that each finetune is measured on, at most where the evaluation set
    has not been read; (None, 0): not known yet."""
    if study.trains_nothing or not warehouse.has_table("eval_set"):
        return study.evaluation.max_instructions, 0
    rows = evaluation_rows(warehouse.read_table("eval_set"), study.evaluation)
    return int(rows["eval_id"].nunique()), len(rows)


def _trial_bytes(
    manifests: Sequence[Mapping[str, dict[str, int]]], probe: Probe | None
) -> int | None:
    sizes = [sum(m["sizes"].values()) for m in manifests if m.get("sizes")]
    if sizes:
        return round(sum(sizes) / len(sizes))
    return None if probe is None else probe.trial_bytes


def _free(study: Study) -> int:
    """Bytes that are free where the study's folder is, or will be."""
    folder = study.folder
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free
