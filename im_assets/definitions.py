"""The one place where assets, checks, jobs and resources meet; what Dagster loads."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from im_assets.automation import assets as automation
from im_assets.automation.conditions import with_conditions
from im_assets.candidates import assets as candidates
from im_assets.candidates.format_registry import check_formats
from im_assets.common.measuring import measured
from im_assets.common.presentation import JOB
from im_assets.common.versions import with_settings
from im_assets.evidence import assets as evidence
from im_assets.experiments import assets as experiments
from im_assets.experiments.measures import measures_of
from im_assets.experiments.trainers import check_trainer, trainer_key
from im_assets.judging import assets as judging
from im_assets.judging.askers import check_judge
from im_assets.landing import assets as landing
from im_assets.mixtures import assets as mixtures
from im_assets.own_runs import assets as own_runs
from im_assets.planning import assets as planning
from im_assets.reporting import assets as reporting
from im_assets.rounds import assets as rounds
from im_assets.rule import assets as rule
from im_assets.rule.ready import check_ready_rule
from im_assets.rule.target import Target, target_measure
from im_assets.scoring import assets as scoring
from im_assets.scoring.registry import Indicator, check_models, chosen, columns_read
from im_assets.selection import assets as selection
from im_assets.selection.registry import check_strategies, contents_of
from im_assets.shares import assets as shares
from im_assets.univariate import assets as univariate
from im_assets.validation import assets as validation
from im_resources import waiting
from im_resources.adapter_store import AdapterStoreResource
from im_resources.deployment.making import gpu_of, warehouse_address
from im_resources.judge import judge_fingerprint
from im_resources.language_model.template_registry import template_key, template_of
from im_resources.plugins import load_plugins
from im_resources.runs import dead_runs_sensor, one_process_executor
from im_resources.study import StrategySettings, Study, load_study
from im_resources.study.environment import check_history
from im_resources.study.fingerprints import settings_content
from im_resources.study.resource import StudyResource
from im_resources.warehouse import WarehouseResource
from im_resources.warehouse_io_manager import WarehouseIOManager

ROOMS = (
    landing, candidates, own_runs, mixtures, planning, scoring, experiments, univariate, rounds,
    rule, evidence, shares, selection, validation, judging, reporting, automation,
)  # fmt: skip


def _with_files(value: Any, *strategies: StrategySettings) -> Any:
    """Settings of strategies, with what is in the files that they name; themselves where none."""
    contents = contents_of(*strategies)
    return (value, contents) if contents else value


def _judge_of(indicator: Indicator, study: Study) -> list[str]:
    """Who gives the indicator, where a judge does; a local one is among the study's models."""
    asks = "judge" in indicator.backend.uses
    return [judge_fingerprint(study.judge, "")] if asks and study.judge is not None else []


# Settings that name entries of a registry; these have versions of their own.
KEYS: dict[str, Callable[[Study], Any]] = {
    "finetuning": lambda study: trainer_key(study.finetuning),
    "models": lambda study: (study.models, template_key(study.models.prompt)),
    "models.loss_turns": lambda study: settings_content(study.models).get("loss_turns"),
    "models.prompt": lambda study: template_key(study.models.prompt),
    "evaluation.take": lambda study: settings_content(study.evaluation).get("take"),
    "evaluation.sample_seed": lambda study: settings_content(study.evaluation).get("sample_seed"),
    "evaluation.holdout": lambda study: settings_content(study.evaluation).get("holdout"),
    "judge.take": lambda study: study.judge and settings_content(study.judge).get("take"),
    "judge.sample_seed": lambda study: (
        study.judge and settings_content(study.judge).get("sample_seed")
    ),
    "evaluation.measures": lambda study: [(m.name, m.version) for m in measures_of(study)],
    "selection": lambda study: _with_files(study.selection, study.selection),
    "selection.options": lambda study: _with_files(study.selection.options, study.selection),
    "validation.strategies": lambda study: (
        study.validation
        and _with_files(study.validation.strategies, *study.validation.strategies.values())
    ),
    "mining.strategies": lambda study: (
        study.mining and _with_files(study.mining.strategies, *study.mining.strategies.values())
    ),
    "rule.target": lambda study: (study.target, target_measure(study).version),
    "scoring.indicators": lambda study: [
        (i.name, i.backend.name, i.backend.version, i.options, *_judge_of(i, study))
        for i in chosen(study.scoring)
    ],
}


def definitions(study: Study, profile: str) -> dg.Definitions:
    """All definitions of a study. One process runs all steps, so that the base is loaded once."""
    load_plugins(study)
    # An unknown name is an error here, not hours into a run.
    check_formats(study.data)
    template_of(study.models.prompt)
    columns_read(study.scoring)
    check_models(study)
    check_ready_rule(study)
    check_strategies(study)
    check_trainer(study)
    Target.of(study)
    check_judge(study)
    rooms = dg.Definitions.merge(*(room.definitions(study) for room in ROOMS))
    made = [asset for asset in rooms.assets or () if isinstance(asset, dg.AssetsDefinition)]
    versioned = measured(with_settings(made, study, KEYS))
    assets = with_conditions(versioned, rooms.asset_checks or (), study)
    warehouse = warehouse_address(study)
    return dg.Definitions(
        assets=assets,
        asset_checks=rooms.asset_checks,
        jobs=jobs(assets, study),
        sensors=[*(rooms.sensors or ()), dead_runs_sensor()],
        schedules=rooms.schedules,
        resources={
            "study": StudyResource(profile=profile),
            "gpu": gpu_of(study),
            "warehouse": WarehouseResource(path=warehouse),
            "adapters": AdapterStoreResource(profile=profile),
            "io_manager": WarehouseIOManager(database=warehouse),
        },
        executor=one_process_executor,
        metadata={"study": study.name, "label": study.label, "profile": profile},
    )


# The jobs, in order. Partitioned assets of a job share one set of partitions, so each experiment is
# a job, and a run, of its own; what belongs to no partition is in the first job that makes all that
# it is made from.
RUNS = {
    "data": "The pools as they are now, the seeds of the mixtures drawn from them, and the plan.",
    "study": "From mixtures to a selection: pass a range of seeds for one run.",
    "univariate": "Each indicator alone, over bins of the scored pool.",
    "sizes": "Finetunes on selections of several sizes.",
    "validation": "Finetunes on selections, against random ones.",
    "judging": "Answers of two finetuned models, compared by a judge.",
    "reporting": "The report of everything before.",
}
READY_RUNS = {
    "data": "The unseen pools as they are now, and the plan.",
    "study": "The scores of the pools, and what the ready rule selects by them.",
}  # of a study that fits no rule
OWN_RUNS = {
    "data": "The pools and the finished runs as they are now, and the plan.",
    "study": "From the runs' examples to a selection; nothing is finetuned.",
}  # of a study of finetunes that were made elsewhere
# A judge that cannot be reached keeps no verdict from being made, and the report comes last.
ALONE = {"judging", "reporting"}
FIRST = {"landing", "candidates", "own_runs", "mixtures", "planning"}


def runs_of(study: Study) -> dict[str, str]:
    """The jobs that a study may have, in order, and what they do: rounds come before all that a
    rule may be fitted on them for."""
    first = {name: RUNS[name] for name in ("data", "study")}
    return first | rounds.runs(study) | RUNS


def jobs(assets: Sequence[dg.AssetsDefinition], study: Study) -> list[Any]:
    """One job for each run of a whole study, in order."""
    specs = {spec.key: spec for asset in assets for spec in asset.specs}
    other = OWN_RUNS if study.runs is not None else READY_RUNS if study.fits_nothing else {}
    said = runs_of(study) | other
    order = list(said)
    places: dict[dg.AssetKey, int] = {}

    def place(key: dg.AssetKey) -> int:
        if key not in places:
            spec = specs[key]
            group = str(spec.group_name)
            job = str(spec.metadata.get(JOB, group))
            fixed = group in ALONE or (spec.partitions_def is not None and job in said)
            # What decides which partitions there are is made before a run over them begins: scores
            # too, where mixtures are drawn by them.
            drawn_by_scores = study.mixtures.kind != "random" and not study.trains_nothing
            deciding = FIRST | {"scoring"} if drawn_by_scores else FIRST
            first = 0 if group in deciding and spec.partitions_def is None else 1
            own = order.index(job) if fixed else first
            parents = [place(d.asset_key) for d in spec.deps if d.asset_key in specs]
            places[key] = max([own, *parents])
        return places[key]

    members: dict[str, list[dg.AssetKey]] = {}
    for key in specs:
        members.setdefault(order[place(key)], []).append(key)
    return [
        dg.define_asset_job(
            name,
            selection=dg.AssetSelection.assets(*members[name]),
            description=said[name],
            tags={"study": study.name},
        )
        for name in order
        if name in members
    ]


PROFILE = os.environ.get("IM_PROFILE") or "demo"
STUDY = load_study(PROFILE)
waiting.install()
check_history(STUDY)
defs = definitions(STUDY, PROFILE)
