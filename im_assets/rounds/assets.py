"""The rounds: round_1_rule → round_1_samples → _adapters → _losses → round_2_rule → …, and
mining_rounds, which tells of them all."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.presentation import markdown, presentation, preview, table
from im_assets.experiments.assets import definitions_of
from im_assets.experiments.experiment import GOES_ON, WHY, Experiment
from im_assets.experiments.holdout import split_of
from im_assets.experiments.points import Parts
from im_assets.mixtures.experiment import mixture_experiment
from im_assets.rounds.deciding import Decision, decided
from im_assets.rounds.experiment import round_experiments, rule_name
from im_assets.rounds.figures import rounds_figure
from im_assets.rounds.gains import less_random
from im_assets.rounds.measured import Round, measured_round, whole_points
from im_assets.rounds.telling import COLUMNS, rounds_table, sentences
from im_assets.rule.assets import COLUMNS as RULE_COLUMNS
from im_assets.rule.assets import FITTING, MEASURING, rule_metadata
from im_assets.rule.document import coefficient_table
from im_assets.rule.fitted import fitted_rule
from im_assets.rule.target import Target
from im_assets.scoring.batch import Models
from im_assets.validation.arms import RULE
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

GROUP, TABLE = "rounds", "mining_rounds"
GATE_COLUMNS = {
    "round": ("bigint", "The round that the rule selects in, from 1"),
    GOES_ON: ("boolean", "Whether the round is made"),
    WHY: ("text", "Why it is made, or not"),
    "rmse_before": (
        "double",
        "Root mean square of measured less predicted target (log loss) of the rule of the round "
        "before, over the sets of that round; null: there was none",
    ),
    "rule_rmse_before": ("double", "The same over the sets that this rule selected"),
}


def round_rule_asset(study: Study, number: int) -> dg.AssetsDefinition:
    """The asset ``round_<number>_rule``: what the round selects by, and whether it is made."""
    mixtures, before = mixture_experiment(study), round_experiments(study)[: number - 1]

    @dg.asset(
        name=rule_name(number),
        description=f"The rule of round {number}, chosen and fitted on the mixtures"
        + (" and on what the rounds before finetuned on" if before else "")
        + ", one row a term; how far the rule before was off on what it selected, and whether this "
        "round is made.",
        ins=_ins(mixtures, *before),
        deps=[mixtures.scores],  # aggregated in SQL
        **presentation(
            GROUP,
            {"python", "duckdb", "statsmodels"},
            {**RULE_COLUMNS, **GATE_COLUMNS},
            reads=(*_READS, *FITTING),
        ),
    )
    def round_rule(
        context: dg.AssetExecutionContext,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **tables: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        rounds = _rounds(before, tables, study, gpu, warehouse)
        found = [whole_points(mixtures, tables, study, gpu, warehouse)[0]]
        found += [one.points.drop(columns="strategy") for one in rounds if len(one.points)]
        points = pd.concat(found, ignore_index=True)
        rule = fitted_rule(points, study, Models.of(study, gpu))
        errors = [one.errors for one in rounds]
        decision = decided(errors, rule)
        if not decision.goes_on:
            context.log.info(f"round {number} is not made: {decision.why}")
        last = errors[-1] if errors else None
        told: dict[str, Any] = {
            "rmse_before": None if last is None else last.rmse,
            "rule_rmse_before": None if last is None else last.of(RULE).rmse,
        }
        made = coefficient_table(rule).assign(round=number)
        made[GOES_ON], made[WHY] = decision.goes_on, decision.why
        made = made.assign(**told).astype(dict.fromkeys(told, "float64"))
        counts = points["experiment"].value_counts().sort_index()
        metadata = {
            GOES_ON: decision.goes_on,
            WHY: decision.why,
            "points": dg.MetadataValue.json({str(k): int(n) for k, n in counts.items()}),
            "error of the rule before, all sets": told["rmse_before"],
            "error of the rule before, its own": told["rule_rmse_before"],
        }
        indicators = list(study.scoring.indicators)
        return table(made, metadata | rule_metadata(rule, points, indicators))

    return round_rule


def mining_rounds_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``mining_rounds``."""
    experiments = round_experiments(study)

    @dg.asset(
        name=TABLE,
        ins=_ins(*experiments),
        deps=list(dict.fromkeys(e.scores for e in experiments)),
        **presentation(
            GROUP, {"python", "duckdb"}, COLUMNS, reads=(*_READS, "evaluation.measures")
        ),
    )
    def mining_rounds(
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **tables: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        """One row a round: how wrong its rule was about the sets that it and its rivals selected,
        whether that fell since the round before, beyond what other sets would give, and whether its
        own sets were better than random ones. A round is made while the error falls, by the point
        estimate."""
        rounds = _rounds(experiments, tables, study, gpu, warehouse)
        decisions = [_decision(tables[rule_name(one.number)]) for one in rounds]
        reported = split_of(tables["eval_set"], study.evaluation).reported
        gains = [less_random(one, reported, study) for one in rounds]
        found, target = rounds_table(rounds, decisions, gains), Target.of(study)
        metadata: dict[str, Any] = {
            "answer": dg.MetadataValue.md("\n\n".join(map(markdown, sentences(found, target)))),
            "rounds": preview(found, rows=len(found)),
            "compared with random on": reported.words,
        }
        if (figure := rounds_figure(found, target)) is not None:
            metadata["errors"] = png_markdown(figure, "error of each round's rule where it selects")
        return table(found, metadata)

    return mining_rounds


def runs(study: Study) -> dict[str, str]:
    """The jobs of this room and what they do, in order: one a round, whose partitions it has."""
    return {
        e.name: f"Round {number}: finetunes on what its rule and its rivals select."
        for number, e in enumerate(round_experiments(study), 1)
    }


def definitions(study: Study) -> dg.Definitions:
    """The assets and checks of this room; none when the profile has no rounds."""
    if study.mining is None or study.fits_nothing:
        return dg.Definitions()
    experiments = round_experiments(study)
    rules = [round_rule_asset(study, number + 1) for number in range(len(experiments))]
    room = dg.Definitions(assets=[*rules, mining_rounds_asset(study)])
    return dg.Definitions.merge(*(definitions_of(e, study) for e in experiments), room)


# What measured sets, as points, depend on.
_READS = (*MEASURING, "evaluation.holdout", "scoring.indicators", "models")


def _ins(*experiments: Experiment) -> dict[str, dg.AssetIn]:
    names = dict.fromkeys(name for e in experiments for name in Parts.names(e))
    return {name: dg.AssetIn(name) for name in names}


def _rounds(
    experiments: list[Experiment],
    tables: Mapping[str, pd.DataFrame],
    study: Study,
    gpu: GpuResource,
    warehouse: Warehouse,
) -> list[Round]:
    return [
        measured_round(number, experiment, tables, study, gpu, warehouse)
        for number, experiment in enumerate(experiments, 1)
    ]


def _decision(rule: pd.DataFrame) -> Decision:
    return Decision(bool(rule[GOES_ON].all()), str(rule[WHY].iloc[0]))
