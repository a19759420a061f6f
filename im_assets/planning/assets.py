"""study_plan: what the runs after the data have before them, for who watches in the UI."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.presentation import markdown, presentation, preview, table
from im_assets.own_runs import RUNS
from im_assets.planning.history import changed, code_versions, ran
from im_assets.planning.planning import plan_of
from im_assets.planning.telling import COLUMNS, frame, notes, summary
from im_assets.planning.work import Plan
from im_resources.adapter_store import AdapterStore
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

_SAID = (
    "Asset that has something to compute",
    "What is counted",
    "How many there will be; ≤: at most",
    "How many are there, and are not made again",
    "How many are left",
    "Tokens through the base model for what is left, padding included; ?: not known",
    "How long that takes; ?: not known",
)


def plan_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``study_plan``."""
    made_from = [f"{pool}_dataset" for pool in study.pools]
    if study.runs is not None:
        made_from += ["candidate_datasets", RUNS]
    elif not study.fits_nothing:
        made_from += ["eval_set", "candidate_datasets", "mixture_seeds"]

    # No `reads`: it is of a moment, and no result that a changed setting makes wrong.
    @dg.asset(
        deps=made_from,
        **presentation(
            "planning",
            {"python", "duckdb"},
            {name: ("text", said) for name, said in zip(COLUMNS, _SAID, strict=True)},
        ),
    )
    def study_plan(
        context: dg.AssetExecutionContext,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        adapters: dg.ResourceParam[AdapterStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        """What is there and what is left to compute once the data have been read: examples to
        score, finetunes, evaluations, tokens, time and disk. Times are as in the last run, or as a
        probe found (`python -m im_assets.run --plan`); nothing is measured here."""
        versions, instance = code_versions(study), context.instance
        known = ran(study, instance, versions), changed(study, instance, versions)
        try:
            plan = plan_of(study, warehouse, adapters, gpu, *known)
        except (ValueError, RuntimeError, OSError) as error:
            # The step that it concerns fails with it, and says what to do: a plan stops nothing.
            context.log.warning(f"no plan can be made: {error}")
            nothing = pd.DataFrame(columns=list(COLUMNS), dtype="string")
            return table(nothing, {"plan": f"cannot be made: {error}"})
        context.log.info(f"plan: {summary(plan)}")
        return table(frame(plan).astype("string"), _metadata(plan))

    return study_plan


def _metadata(plan: Plan) -> dict[str, Any]:
    rows = frame(plan)
    left = {
        unit: sum(work.left or 0 for work in plan.work if work.kind == kind)
        for kind, unit in (
            ("scoring", "examples to score"),
            ("training", "finetunes left"),
            ("evaluating", "evaluations left"),
        )
    }
    times = {} if plan.seconds is None else {"minutes, at most": round(plan.seconds[1] / 60, 2)}
    disk = {} if plan.disk is None else {"disk (MiB)": round(plan.disk / 2**20, 1)}
    return {
        "plan": summary(plan),
        "work": preview(rows, rows=len(rows)),
        "notes": dg.MetadataValue.md("\n".join(f"- {markdown(line)}" for line in notes(plan))),
        **left,
        **times,
        **disk,
        "disk free (MiB)": round(plan.free / 2**20, 1),
    }


def definitions(study: Study) -> dg.Definitions:
    """The asset of this room."""
    return dg.Definitions(assets=[plan_asset(study)])
