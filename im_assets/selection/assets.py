"""<pool>_selection: what to finetune on, by the profile's strategy; and how much of it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.candidates import tracing
from im_assets.candidates.format_registry import FORMATS
from im_assets.candidates.tracing import PLACE
from im_assets.common.charts.drawing import png_markdown
from im_assets.common.exports import published
from im_assets.common.presentation import markdown, presentation, preview, table
from im_assets.experiments.assets import definitions_of
from im_assets.experiments.checks import parts_agree_check
from im_assets.experiments.experiment import Drawing
from im_assets.experiments.holdout import split_of
from im_assets.experiments.lineage import LineageError
from im_assets.experiments.points import Parts
from im_assets.rule.checks import drawn_by_this_rule_check
from im_assets.rule.target import Target, target_measure
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import Indicator, SetTooSmall, set_level
from im_assets.selection.chance import by_chance, require_beyond_chance
from im_assets.selection.checks import chance_check, composition_check, reach_check
from im_assets.selection.choosing import choose, resolve_size
from im_assets.selection.experiment import size_experiment, size_key
from im_assets.selection.figures import distribution_figure, size_figure
from im_assets.selection.pool import MADE_BY, SLIM, Pool, is_plugin, pool_of
from im_assets.selection.pool_indicators import pool_indicators_asset
from im_assets.selection.reach import reach, tied
from im_assets.selection.registry import strategy_of
from im_assets.selection.selecting import compare_with_random, export_jsonl, ranked_table
from im_assets.selection.size_search import measured_sizes, search_sizes, split_halves
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

SELECTION_FILE = "selection.jsonl"
SHOWN = 8  # examples of a preview
COLUMNS = {
    "rank": ("bigint", "1 = first in the strategy's order"),
    "example_id": ("text", "Content hash of the example"),
    "instruction": ("text", "What is asked; of a conversation, its last user turn"),
    "input": ("text", "Context of the instruction"),
    "output": ("text", "The response; of a conversation, its last reply"),
    "turns": ("text", "Of a conversation, all turns before the response, as JSON; else NULL"),
    "category": ("text", "The pool's own category"),
    **tracing.COLUMNS,
    "language": ("text", "ISO 639-1 code; zxx: no language; und: undetermined"),
}
SIZE_COLUMNS = {
    "method": ("text", "blend_search, or grid: geometrically spaced sizes"),
    "trial": ("bigint", "Number of the trial within its method, from 0"),
    "size": ("bigint", "Examples selected and finetuned on"),
    "search_loss": ("double", "Evaluation loss (or other target) on the half that was searched on"),
    "report_loss": ("double", "Evaluation loss on the other half, or what is held out"),
    "chosen": ("boolean", "Whether this is the size of the selection"),
    "rule_id": ("text", "Fingerprint of the rule that the selections are by"),
    "search_instructions": ("bigint", "Instructions that were searched on"),
    "part": ("text", "Instructions reported on: half, or held_out"),
    "instructions": ("bigint", "How many they are"),
    "measured_id": (
        "text",
        "Fingerprint of the evaluation set and of the instructions reported on",
    ),
}


def selection_asset(pool_name: str, study: Study) -> dg.AssetsDefinition:
    """The asset ``<pool>_selection``; it takes a searched size from size_search."""
    searched = study.selection.size == "searched"
    target = Target.of(study)
    columns = {
        **COLUMNS,
        target.predicted_column: ("double", "The rule's value for this example"),
        "strategy": ("text", "The strategy that selected it"),
        "beyond_chance": (
            "boolean",
            "Whether the rule is beyond chance, where the strategy ranks by it; null: not tested",
        ),
        "rule_id": ("text", "Fingerprint of the rule"),
    }
    made_from = (f"{pool_name}_dataset", f"{pool_name}_indicators", "quality_rule")

    # Of most of the pool, no text is looked at, but by a strategy that may.
    read_as = {} if is_plugin(study.selection) else {made_from[0]: SLIM}
    read_as[made_from[1]] = {"categories": [MADE_BY]}

    @dg.asset(
        name=f"{pool_name}_selection",
        description="The examples of the unseen pool that the profile's strategy selects, with "
        f"rank, predicted {target.label} and every indicator; also exported as JSONL, in the "
        "shape of its source and ready to finetune on.",
        ins={
            name: dg.AssetIn(name, metadata=read_as.get(name, {}))
            for name in (*made_from, *["size_search"][: int(searched)])
        },
        **presentation(
            "selection",
            {"python", "duckdb"},
            columns,
            code_version="4",
            reads=("selection", "mixtures.size", "scoring.indicators"),
        ),
    )
    def pool_selection(
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **tables: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        settings = study.selection
        drawing = Drawing(tables, study, Models.of(study, gpu), warehouse)
        pool = pool_of(pool_name, drawing)
        require_beyond_chance(settings, pool.rule)
        if isinstance(settings.size, str):  # "searched"
            size = chosen_size(tables["size_search"], pool.rule.id)
        else:
            size = resolve_size(settings.size, len(pool))
        positions = choose(settings, pool, size, seed=0)
        selection = ranked_table(pool.rows(positions), pool.indicators, pool.rule)
        by_rule = strategy_of(settings)[0].by_rule
        told = pd.array([pool.rule.beyond_chance if by_rule else None] * len(selection), "boolean")
        selection = selection.assign(
            strategy=settings.strategy, beyond_chance=told, rule_id=pool.rule.id
        )
        path = selection_file(study, pool_name)
        write = FORMATS.get(study.data.unseen[pool_name].format, "format").write
        export_jsonl(selection, path, pool.rule.predicts.predicted_column, write)
        return table(selection, _selection_metadata(pool, positions, selection, study, path))

    return pool_selection


def size_search_assets(study: Study) -> dg.Definitions:
    """The experiment of the sizes and size_search; nothing when the profile gives the size."""
    if study.selection.size != "searched":
        return dg.Definitions()
    experiment = size_experiment(study)

    @dg.asset(
        ins={name: dg.AssetIn(name) for name in Parts.names(experiment)},
        **presentation(
            "sizes",
            {"python", "duckdb"},
            SIZE_COLUMNS,
            code_version="3",
            reads=(
                "selection.search",
                "evaluation.weighting",
                "rule.target",
                "evaluation.holdout",
            ),
        ),
    )
    def size_search(
        study: dg.ResourceParam[Study], gpu: GpuResource, **tables: pd.DataFrame
    ) -> dg.Output[pd.DataFrame]:
        """How much to select: BlendSearch, which chooses on one half of the evaluation
        instructions, and a plain grid of as many sizes. Report the losses on the other half: a
        least of several losses flatters itself. With `evaluation.holdout`, it chooses on what rules
        are fitted on, and reports on what is held out."""
        parts = Parts.of(experiment, tables)
        parts = parts.whole(parts.faults(tables["eval_set"], study, gpu))
        measure, target = target_measure(study), Target.of(study)
        both = _searched_and_reported(parts, tables["eval_set"], study)
        searched, reported = (part.measured(measure) for part in both)
        search_on, report_on = (part.measured_columns(study) for part in both)
        sizes = {size_key(size): size for size in measured_sizes(study.selection.search)}
        losses = {size: (searched[key], reported[key]) for key, size in sizes.items()}
        trials = pd.DataFrame(
            map(asdict, search_sizes(losses, study.selection.search, target.sign))
        )
        trials = trials.assign(
            rule_id=parts.one("rule_id"),
            search_instructions=search_on["instructions"],
            **report_on,
        )
        best = (target.sign * trials["search_loss"]).groupby(trials["method"]).idxmin()
        least = trials.loc[best]
        extreme = "least" if target.direction == "lower" else "highest"
        figure = size_figure(trials, target=target)
        metadata: dict[str, Any] = {
            "size": chosen_size(trials, parts.one("rule_id")),
            "finetunes": len(sizes),
            "strategy": study.selection.strategy,
            "instructions searched on": search_on["instructions"],
            "instructions reported on": report_on["instructions"],
            f"{extreme} search {target.measure_label} of each method": preview(least),
            "trials": preview(trials, rows=len(trials)),
            f"{target.measure_label} against size": png_markdown(
                figure, f"{target.noun} against selection size"
            ),
        }
        return table(trials, metadata)

    checks = [
        parts_agree_check(experiment, "size_search"),
        drawn_by_this_rule_check("size_search", experiment.samples),
    ]
    room = dg.Definitions(assets=[size_search], asset_checks=checks)
    return dg.Definitions.merge(definitions_of(experiment, study), room)


def definitions(study: Study) -> dg.Definitions:
    """The assets and checks of this room."""
    room = dg.Definitions(
        assets=[
            make(pool, study)
            for pool in study.pools
            for make in (pool_indicators_asset, selection_asset)
        ],
        asset_checks=[
            make(pool)
            for pool in study.pools
            for make in (composition_check, chance_check, reach_check)
        ],
    )
    return dg.Definitions.merge(size_search_assets(study), room)


def selection_file(study: Study, pool: str) -> Path:
    """Where a pool's selection is exported to, as JSONL."""
    name = SELECTION_FILE if len(study.pools) == 1 else f"{pool}_{SELECTION_FILE}"
    return study.folder / name


def chosen_size(trials: pd.DataFrame, rule_id: str) -> int:
    """The size that the table ``size_search`` chose for this rule.

    Raises LineageError when it searched with the selections of another one.
    """
    if set(trials["rule_id"]) != {rule_id}:
        raise LineageError(
            "size_search looked for the size of an earlier rule's selection; materialize "
            "size_samples, size_adapters, size_losses and size_search again"
        )
    return int(trials.loc[trials["chosen"].astype(bool), "size"].iloc[0])


def _searched_and_reported(
    parts: Parts, eval_set: pd.DataFrame, study: Study
) -> tuple[Parts, Parts]:
    """The sizes' finetunes as they are searched by, and as they are reported."""
    if study.evaluation.holdout is not None:
        split = split_of(eval_set, study.evaluation)
        return parts.on(split.fitting), parts.on(split.reported)
    rows = parts.rows(target_measure(study).reads)
    first, second = split_halves(rows["eval_id"].tolist())
    return parts.only(first, "half"), parts.only(second, "half")


def _selection_metadata(
    pool: Pool,
    positions: np.ndarray,
    selection: pd.DataFrame,
    study: Study,
    path: Path,
) -> dict[str, Any]:
    target = pool.rule.predicts
    predicted = target.predicted_column
    numbers = [predicted, *pool.indicators.columns]
    draws = study.selection.random_draws
    whole = pool.indicators.assign(**{predicted: pool.rule.predict_examples(pool.indicators)})
    compared = compare_with_random(whole, positions.tolist(), numbers, draws)
    last = pool.ranked(target.sign * whole[predicted].to_numpy())[::-1][:SHOWN]
    worst = ranked_table(pool.rows(last), pool.indicators, pool.rule)
    shown = ["rank", predicted, "instruction", "output", *PLACE]
    covered = reach(pool.rule, pool.indicators, selection)
    chance = by_chance(study.selection, pool.rule)
    plot = distribution_figure(whole[predicted], selection[predicted], target)
    return {
        "selected": len(selection),
        "pool": len(pool),
        "strategy": study.selection.strategy,
        "rule": pool.rule.formula,
        "rule_id": pool.rule.id,
        **({"by chance": dg.MetadataValue.md(markdown(chance))} if chance else {}),
        "study": study.label or study.name,
        "against random subsets of the same size": preview(compared, rows=len(compared)),
        "outside what the rule was fitted on": preview(covered, rows=len(covered)),
        **(
            {
                "of the pool, by the rule as good as its last": tied(
                    pool.rule, pool.indicators, selection
                )
            }
            if strategy_of(study.selection)[0].by_rule
            else {}
        ),
        "distribution": png_markdown(plot, f"predicted {target.label} of pool and selection"),
        "best": preview(selection[shown], rows=SHOWN),
        "worst of the pool by the rule": preview(worst[shown[1:]], rows=SHOWN),
        "export": dg.MetadataValue.path(path),
        **published(study, path),
        **set_properties(pool, positions, set_level(study.scoring)),
    }


def set_properties(
    pool: Pool, positions: np.ndarray, indicators: Sequence[Indicator]
) -> dict[str, float | str]:
    """Set-level indicators of the selection as the set that it is, and of a random set of its size.

    Why there is none stands in its place where the selection has too few examples.
    """
    if not indicators:
        return {}
    generator = np.random.Generator(np.random.PCG64(0))
    random = generator.choice(len(pool), len(positions), replace=False)
    # Read together: of a large pool, most of the time goes into finding them.
    both = pool.vectors(np.concatenate([positions, random]))
    sets = ("the selection", "a random set")
    vectors = dict(zip(sets, np.split(both, [len(positions)]), strict=True))
    found: dict[str, float | str] = {}
    for indicator in indicators:
        for name in sets:
            try:
                value: float | str = indicator.of_set(vectors[name])
            except SetTooSmall as error:
                value = str(error)
            found[f"{indicator.name} within {name}"] = value
    return found
