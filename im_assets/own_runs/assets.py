"""finished_runs and indicator_table of a study whose finetunes were made elsewhere."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.candidates.format_registry import FORMATS
from im_assets.candidates.versions import KEY
from im_assets.candidates.withdrawn import withdrawn_ids
from im_assets.common.presentation import presentation, preview, table
from im_assets.own_runs import RUNS
from im_assets.own_runs.points import members_table, points_of_runs
from im_assets.own_runs.reading import RUN, OwnRuns, OwnRunsError, read_runs
from im_assets.rule.assets import points_metadata
from im_assets.rule.checks import HOLDS, still_holds
from im_assets.rule.fitting import too_few
from im_assets.rule.target import Target
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_resources.gpu import GpuResource
from im_resources.study import Study, resolve_path
from im_resources.warehouse import Warehouse

MEMBERS = {
    RUN: ("text", "Name of the run, as the file has it"),
    "position": ("bigint", "Place in the run's data, from 0"),
    "example_id": ("text", "Content hash of the example"),
    "source": ("text", "Candidate source that it is of"),
    "set_id": ("text", "Fingerprint of the set: its examples in order"),
}


def runs_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``finished_runs``."""
    target = Target.of(study)
    measured = {target.measure: ("double", "What was measured of the run")}

    @dg.asset(
        name=RUNS,
        description="The finetunes in the file of `runs`, one row an example that a run was "
        "trained on, and what was measured of the run. Nothing of it is finetuned or measured "
        "here.",
        ins={"candidate_datasets": dg.AssetIn(metadata={"columns": KEY})},
        **presentation(
            "own_runs",
            {"python", "duckdb"},
            MEMBERS | measured,
            reads=("runs", "data.withdrawn"),
        ),
    )
    def finished_runs(
        context: dg.AssetExecutionContext,
        candidate_datasets: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> dg.Output[pd.DataFrame]:
        assert study.runs is not None
        pool = candidate_datasets.set_index("example_id")["source"]
        target = Target.of(study)
        found = read_runs(study.runs, target, frozenset(pool.index), withdrawn_ids(study))
        if said := too_few(len(found.runs), len(study.scoring.indicators), study.rule):
            raise OwnRunsError(f"{resolve_path(study.runs.path)}: {said}")
        unusable = {run.name: run.unusable for run in found.runs if run.unusable}
        if unusable:
            context.log.warning(
                f"rows that are no example (unreadable, or empty), and are not in the means: "
                f"{unusable}"
            )
        members = members_table(found.runs, pool, target.measure)
        return table(members, _metadata(found, members, unusable, target))

    return finished_runs


def _metadata(
    found: OwnRuns, members: pd.DataFrame, unusable: dict[str, int], target: Target
) -> dict[str, Any]:
    sizes = [len(run.members) for run in found.runs]
    values = [run.value for run in found.runs]
    rows = pd.DataFrame(
        {
            RUN: [run.name for run in found.runs],
            "examples": sizes,
            target.measure: values,
            "rows that are no example": [run.unusable for run in found.runs],
        }
    )
    return {
        "runs": len(found.runs),
        "different examples": int(members["example_id"].nunique()),
        "fewest examples of a run": min(sizes),
        "most examples of a run": max(sizes),
        f"lowest {target.measure_label}": min(values),
        f"highest {target.measure_label}": max(values),
        "columns that are not read": ", ".join(found.ignored) or "none",
        "rows that are no example": sum(unusable.values()),
        "table": preview(rows, rows=20),
    }


def points_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``indicator_table``: the finished runs as points."""

    @dg.asset(
        deps=["example_scores"],  # aggregated in SQL
        check_specs=[HOLDS],
        **presentation(
            "rule",
            {"sql", "duckdb"},
            reads=("rule.target", "rule.transform", "scoring.indicators", "models"),
        ),
    )
    def indicator_table(
        finished_runs: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[dg.Output[pd.DataFrame] | dg.AssetCheckResult]:
        """One row a finished run: the mean of every indicator over its examples on the scale of
        `rule.transform`, KNN over the set as such, what was measured of it, and that on the scale
        of the rule's target."""
        models = Models.of(study, gpu)
        points = points_of_runs(finished_runs, chosen(study.scoring), study, models, warehouse)
        # Here, and not in a step of its own: the next rule may be fitted before that one runs.
        yield still_holds(points, study, warehouse)
        yield table(points, points_metadata(points, study))

    return indicator_table


def definitions(study: Study) -> dg.Definitions:
    """The assets of this room; none where the study makes its own finetunes, or fits no rule."""
    if study.runs is None:
        return dg.Definitions()
    # An unknown name is an error here, not in a run.
    FORMATS.get(study.runs.format, "runs.format")
    return dg.Definitions(assets=[runs_asset(study), points_asset(study)])
