"""example_scores and <pool>_scores: every example scored once, ever, whatever mixture draws it."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.cuts import cuts_check, recorded
from im_assets.common.presentation import presentation, preview, table
from im_assets.common.progress import Progress
from im_assets.own_runs import members_of
from im_assets.scoring.batch import Models
from im_assets.scoring.cached import loader
from im_assets.scoring.checks import apart_check
from im_assets.scoring.cuts import cuts_of
from im_assets.scoring.registry import chosen, reads_tokens
from im_assets.scoring.scorer import score_missing
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

COLUMNS = {
    "example_id": ("text", "Content hash of the example"),
    "indicator": ("text", "Name of the indicator in the profile"),
    "backend": ("text", "Backend that computed it"),
    "fingerprint": ("text", "Backend version, options and models"),
    "value": ("double", "The indicator's value"),
}


READ = {"exchange": "the last exchange", "conversation": "all turns"}
MODELS = ("models", "scoring.indicators")


def example_scores_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``example_scores``. It waits for the mixtures, or runs, only where it scores their
    members: "Materialize all" else scores in its first run, beside the unseen pool."""
    members = study.scoring.score == "members"

    @dg.asset(
        name="example_scores",
        description="Indicators of the candidates that some mixture drew (`score: members`) or of "
        "the whole pool (`score: all`). Only what is not in the score cache yet is computed.",
        ins={
            "candidate_datasets": _examples("candidate_datasets", study),
            **({"members": dg.AssetIn(members_of(study).asset)} if members else {}),
        },
        **presentation(
            "scoring", {"pytorch", "duckdb"}, COLUMNS, reads=("scoring.score", *MODELS), gpu=True
        ),
    )
    def example_scores(
        context: dg.AssetExecutionContext,
        candidate_datasets: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **tables: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        examples = candidate_datasets
        if members:
            drawn = set(tables["members"]["example_id"])
            examples = examples[examples["example_id"].isin(drawn)]
        return _score(context, examples, "candidate_datasets", study, gpu, warehouse)

    return example_scores


def pool_scores_asset(pool: str, study: Study) -> dg.AssetsDefinition:
    """The asset ``<pool>_scores``."""

    @dg.asset(
        name=f"{pool}_scores",
        description="Indicators of every example of the unseen pool.",
        ins={"examples": _examples(f"{pool}_dataset", study)},
        **presentation("scoring", {"pytorch", "duckdb"}, COLUMNS, reads=MODELS, gpu=True),
    )
    def pool_scores(
        context: dg.AssetExecutionContext,
        examples: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        return _score(context, examples, f"{pool}_dataset", study, gpu, warehouse)

    return pool_scores


def _examples(asset: str, study: Study) -> dg.AssetIn:
    """A table of examples without the texts, which are read of those alone that are scored; whole
    where an indicator is not computed from them but read beside them."""
    whole = not all(indicator.backend.cached for indicator in chosen(study.scoring))
    return dg.AssetIn(asset, metadata={} if whole else {"columns": ["example_id", "source"]})


def _score(
    context: dg.AssetExecutionContext,
    examples: pd.DataFrame,
    asset: str,
    study: Study,
    gpu: GpuResource,
    warehouse: Warehouse,
) -> dg.Output[pd.DataFrame]:
    indicators = chosen(study.scoring)
    progress = Progress(
        context, f"scoring for {context.asset_key.to_user_string()}", len(examples), "examples"
    )

    def on_chunk(done: int, todo: int) -> None:
        progress.total = todo
        progress.advance(done)

    models = Models.of(study, gpu)
    load = None if "output" in examples else loader(asset, warehouse)
    scores, new = score_missing(examples, indicators, models, warehouse, on_chunk, load)
    summary = scores.groupby("indicator", observed=True)["value"].describe().reset_index()
    said: dict[str, float] = {}
    for i in indicators:
        if i.backend.told is not None:
            told = i.backend.told(examples["example_id"], models, warehouse, **i.options)
            said |= {f"{i.name}: {what}": value for what, value in told.items()}
    if said:
        context.log.warning("; ".join(f"{what}: {value:g}" for what, value in said.items()))
    metadata: dict[str, Any] = {
        "examples": len(examples),
        "scored in this run": new,
        **progress.rates,
        **said,
        "backends": {i.name: i.backend.name for i in indicators},
        "read of a conversation": {i.name: READ[i.backend.text] for i in indicators},
        "summary": preview(summary, rows=len(summary)),
    }
    if reads_tokens(study.scoring):
        cuts = cuts_of(examples, models, warehouse, load)
        cuts = cuts.assign(partition="", source=examples["source"].to_numpy())
        metadata |= recorded(context, cuts, study, warehouse).get("", {})
    return table(scores, metadata)


def definitions(study: Study) -> dg.Definitions:
    """The assets of this room; an unknown indicator is an error here, not hours into a run."""
    chosen(study.scoring)
    candidates = [] if study.fits_nothing else [example_scores_asset(study)]
    pools = [f"{pool}_scores" for pool in study.pools]
    # What candidates lose is checked where they are trained on.
    cuts = [cuts_check(name) for name in pools] if reads_tokens(study.scoring) else []
    scored = ["example_scores", *pools] if candidates else pools
    return dg.Definitions(
        assets=[*candidates, *(pool_scores_asset(pool, study) for pool in study.pools)],
        asset_checks=[*cuts, *(apart_check(name) for name in scored)],
    )
