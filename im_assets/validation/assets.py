"""The validation of selections: selection_samples → _adapters → _losses → the verdicts."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.presentation import presentation, preview, table
from im_assets.experiments.assets import definitions_of
from im_assets.experiments.checks import finite_losses_check, parts_agree_check
from im_assets.experiments.evaluation import evaluation_fingerprint, evaluation_rows
from im_assets.experiments.holdout import MEASURED, split_of, told
from im_assets.experiments.measures import beside_target
from im_assets.experiments.points import Parts
from im_assets.rule.checks import drawn_by_this_rule_check
from im_assets.rule.target import Target, target_measure
from im_assets.validation import registering
from im_assets.validation import verdicts as method
from im_assets.validation.arms import BASE, TOKENS, arms_of, tokens_arm
from im_assets.validation.cost_assets import selection_costs_asset
from im_assets.validation.experiment import validation_experiment
from im_assets.validation.figures import decile_figure, verdict_figure
from im_assets.validation.instructions import base_run, instruction_groups, without_each
from im_assets.validation.noise import noise_floor as noise_of
from im_assets.validation.registering import VERSIONS
from im_assets.validation.second_set import SECOND, second_assets
from im_resources.gpu import GpuResource
from im_resources.study import Study, ValidationSettings
from im_resources.warehouse import Warehouse

KINDS = {"python", "duckdb"}
RULE_ID = ("text", "Fingerprint of the rule that the finetunes are about")
# What all tables of the validation say of what they are based on.
SAID = {
    **MEASURED,
    "analysis_id": ("text", "Hash of the analysis, as in registered_analysis"),
}
RUN_COLUMNS = {
    "arm": ("text", "Partition key of the finetune"),
    "kind": ("text", "strategy, reference, noise (a subset again, another seed) or decile"),
    "strategy": ("text", "Arm of the validation; of noise the one that is repeated, or worst"),
    "place": ("text", "Of noise: centre (random), selection, or worst by the rule"),
    "size": ("bigint", "Examples finetuned on; of the full pool and the base 0"),
    "seed": ("bigint", "Seed of the finetune, and of a random strategy's draw"),
    "slice": ("bigint", "Slice of the pool by the rule's value, from 0; of deciles only"),
    "predicted": ("double", "Mean of the rule's value over the examples finetuned on"),
    "trial_id": ("text", "Fingerprint of the trial"),
}
NOISE_COLUMNS = {
    "measure": ("text", "What is measured of a finetune"),
    "source": ("text", "finetune seed: one subset; random subset: another each; or strategies"),
    "place": ("text", "Which subset: centre (random), selection, or worst by the rule"),
    "size": ("bigint", "Examples finetuned on"),
    "finetunes": ("bigint", "Finetunes behind the estimate"),
    "mean": ("double", "Their mean; of strategies, the mean over their means"),
    "sd": ("double", "Standard deviation; of strategies' means, beyond their finetunes' noise"),
    "sd_low": ("double", "Lower end of its 95 % interval"),
    "sd_high": ("double", "Upper end"),
    "signal_to_noise": ("double", "sd of strategies / that of the finetunes of one"),
    "signal_to_noise_low": ("double", "Lower end of its 95 % interval"),
    "signal_to_noise_high": ("double", "Upper end"),
    **SAID,
}
VERDICT_COLUMNS = {
    "strategy": ("text", "Arm of the validation"),
    "size": ("bigint", "Examples finetuned on; of the full pool and the base 0"),
    "against": ("text", "What it is compared with: random subsets, or another reference"),
    "finetunes": ("bigint", "Finetunes of this arm"),
}
DECILE_COLUMNS = {
    "decile": ("bigint", "Slice of the pool, 1 = best by the rule"),
    "predicted": ("double", "Mean prediction for the examples finetuned on"),
}
SPEARMAN_COLUMNS = {
    "spearman": ("double", "Of predicted and measured target over all slices"),
    "spearman_low": ("double", "Lower end of its 95 % bootstrap interval"),
    "spearman_high": ("double", "Upper end"),
    "rule_id": RULE_ID,
    **SAID,
}


def definitions(study: Study) -> dg.Definitions:
    """The assets and checks of this room; none when the profile has no validation."""
    if study.validation is None:
        return dg.Definitions()
    settings: ValidationSettings = study.validation
    arms, experiment = arms_of(settings, study.selection), validation_experiment(study)
    target = Target.of(study)
    others = beside_target(study)
    run_columns = {**RUN_COLUMNS, **_measure_column(target), "rule_id": RULE_ID, **SAID}
    run_columns |= {m.name: ("double", m.label.capitalize()) for m in others}
    run_columns[f"{target.measure}_without"] = (
        "double[]",
        f"{target.noun.capitalize()} without each of so many groups of instructions",
    )
    if target_measure(study).count is not None:
        run_columns["share_of"] = ("bigint", f"Of how many the {target.noun} is a share")
    verdict_columns = {
        **VERDICT_COLUMNS,
        **_measure_column(target, True),
        **method.DIFFERENCE_COLUMNS,
        **SAID,
    }
    decile_columns = {
        **DECILE_COLUMNS,
        **target.columns("the model finetuned on them"),
        **SPEARMAN_COLUMNS,
    }
    second = [SECOND] if study.data.second_evaluation is not None else []
    reads = ("evaluation.weighting", "rule.target")
    measuring = (*reads, "evaluation.holdout")

    # No `reads`: what is registered changes no loss, and a changed setting no registration. It is
    # made with the samples, in the job that measures.
    @dg.asset(
        deps=[experiment.samples],
        ins={name: dg.AssetIn(name) for name in ("eval_set", *second)},
        **presentation("validation", KINDS, registering.COLUMNS),
    )
    def registered_analysis(
        context: dg.AssetExecutionContext,
        study: dg.ResourceParam[Study],
        warehouse: dg.ResourceParam[Warehouse],
        **tables: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        """What is going to be compared and how, written down before a loss is known: rule, arms,
        sizes, seeds, tests, instructions. It only grows: an analysis keeps the time at which it was
        registered first, and what had been measured by then."""
        analysis = registering.analysis_of(study, tables["eval_set"], tables.get(SECOND))
        rows = evaluation_rows(tables["eval_set"], study.evaluation)
        measured = registering.measured_trials(warehouse, evaluation_fingerprint(rows, study))
        there = warehouse.has_table(registering.TABLE)
        before = warehouse.read_table(registering.TABLE) if there else None
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        found = registering.registered(before, analysis, measured, now)
        if len(found) == (0 if before is None else len(before)):
            context.log.info("this analysis is registered already")
        elif measured:
            context.log.warning(f"registered after {len(measured)} losses of selections were there")
        shown = found.drop(columns=["analysis", "trials_there"])
        metadata = {
            "analysis": dg.MetadataValue.json(analysis),
            "hash": registering.analysis_id(analysis),
            "registrations": preview(shown, rows=len(shown)),
        }
        return table(found, metadata, version="registered")

    matched = None
    if TOKENS in settings.references:
        matched = tokens_arm(settings, study.selection)  # an error here, not hours into a run
    reads_of_base = target_measure(study).reads
    base = f"base_{reads_of_base}" if reads_of_base != "verdicts" else None
    with_base = [base] if BASE in settings.references and base is not None else []

    @dg.asset(
        ins={name: dg.AssetIn(name) for name in (*Parts.names(experiment), *second, *with_base)},
        **presentation(
            "validation",
            KINDS,
            run_columns,
            code_version=VERSIONS["validation_runs"],
            reads=(*measuring, "evaluation.measures"),
        ),
    )
    def validation_runs(
        study: dg.ResourceParam[Study], gpu: GpuResource, **tables: pd.DataFrame
    ) -> dg.Output[pd.DataFrame]:
        """One row a finetune of the validation, with its evaluation loss (or other target) on the
        instructions that are held out; only those whose set, finetune and losses belong
        together."""
        parts = Parts.of(experiment, tables)
        part = split_of(tables["eval_set"], study.evaluation).reported
        good = parts.without(parts.faults(tables["eval_set"], study, gpu)).on(part)
        measure = target_measure(study)
        runs = method.validation_runs(good.measured(measure), arms, target)
        counts = good.counted(measure)
        if counts is not None:
            runs["share_of"] = runs["arm"].map(counts)
        for other in others:
            runs[other.name] = runs["arm"].map(good.measured(other))
        groups = instruction_groups(good, measure)
        kept = without_each(good, measure, groups)
        runs[f"{measure.name}_without"] = [kept.get(arm, ()) for arm in runs["arm"]]
        drawn = good.samples.groupby("arm")
        runs["predicted"] = runs["arm"].map(drawn[target.predicted_column].mean())
        runs["rule_id"] = runs["arm"].map(drawn["rule_id"].first())
        runs["trial_id"] = runs["arm"].map(good.adapters.set_index("arm")["trial_id"])
        if BASE in settings.references and len(runs):
            rows = pd.DataFrame() if base is None else part.of(tables[base])
            found = base_run(rows, measure, groups)
            runs = method.with_base(runs, *found, target)
        analysis = registering.analysis_of(study, tables["eval_set"], tables.get(SECOND))
        runs = runs.assign(
            **good.measured_columns(study), analysis_id=registering.analysis_id(analysis)
        )
        return table(runs, {"measured on": part.words})

    @dg.asset(
        **presentation(
            "validation",
            KINDS,
            NOISE_COLUMNS,
            code_version=VERSIONS["noise_floor"],
            reads=reads[1:],
        )
    )
    def noise_floor(validation_runs: pd.DataFrame) -> dg.Output[pd.DataFrame]:
        """How far finetunes lie apart that do not differ in quality: one subset with several
        seeds, at three places, and several random subsets; and, of every measure, how far the
        strategies stand out of it."""
        method.require_all(validation_runs, arms)
        noise = noise_of(validation_runs, [target.measure, *(m.name for m in others)])
        noise = noise.assign(**_measured(validation_runs))
        return table(noise, {"noise": preview(noise, rows=len(noise))})

    @dg.asset(
        **presentation(
            "validation",
            KINDS,
            verdict_columns,
            code_version=VERSIONS["selection_validation"],
            reads=reads[1:],
        )
    )
    def selection_validation(validation_runs: pd.DataFrame) -> dg.Output[pd.DataFrame]:
        """Every strategy against random subsets of the same size: the difference with an interval
        for new subsets, finetunes and instructions, the smallest that could have been seen, and
        better, worse or not distinguishable."""
        rule_id = method.require_all(validation_runs, arms)
        found = method.verdicts(validation_runs, target, matched).assign(rule_id=rule_id)
        found = found.assign(**_measured(validation_runs))
        figure = verdict_figure(found, validation_runs, target)
        metadata: dict[str, Any] = {
            "rule": rule_id,
            "measured on": told(found["part"].iloc[0], found["instructions"].iloc[0]),
            "verdicts": preview(found, rows=len(found)),
            "figure": png_markdown(
                figure, f"{target.measure_label} of each strategy against random subsets"
            ),
        }
        return table(found, metadata)

    @dg.asset(
        **presentation(
            "validation",
            KINDS,
            decile_columns,
            code_version=VERSIONS["rule_deciles"],
            reads=reads[1:],
        )
    )
    def rule_deciles(validation_runs: pd.DataFrame) -> dg.Output[pd.DataFrame]:
        """Does the loss (or other target) follow the rule's value over equal slices of the unseen
        pool?"""
        rule_id = method.require_all(validation_runs, arms)
        slices = validation_runs[validation_runs["kind"] == "decile"].sort_values("slice")
        predicted = slices["predicted"].to_numpy()
        found = method.deciles(validation_runs, predicted, target=target).assign(rule_id=rule_id)
        found = found.assign(**_measured(validation_runs))
        metadata: dict[str, Any] = {
            "rule": rule_id,
            "measured on": told(found["part"].iloc[0], found["instructions"].iloc[0]),
            "deciles": preview(found, rows=len(found)),
            "spearman": float(found["spearman"].iloc[0]),
            "figure": png_markdown(
                decile_figure(found, target), f"{target.measure_label} over deciles of the rule"
            ),
        }
        return table(found, metadata)

    assets = [
        registered_analysis,
        validation_runs,
        noise_floor,
        selection_validation,
        selection_costs_asset(study),
    ]
    assets += [rule_deciles] if settings.deciles else []
    assets += second_assets(experiment, arms, matched) if second else []
    checks = [
        parts_agree_check(experiment, "validation_runs"),
        *([finite_losses_check("second_losses")] if second else []),
        drawn_by_this_rule_check("validation_runs", experiment.samples),
    ]
    room = dg.Definitions(assets=assets, asset_checks=checks)
    return dg.Definitions.merge(definitions_of(experiment, study), room)


def _measured(runs: pd.DataFrame) -> dict[str, Any]:
    """Which instructions the runs were measured on, and what they were made for: what is said of
    them is said of these."""
    return {name: runs[name].iloc[0] for name in SAID}


def _measure_column(target: Target, interval: bool = False) -> dict[str, tuple[str, str]]:
    """The column of the target's measure, and those of its interval."""
    name, noun = target.measure, target.noun.capitalize()
    if not interval:
        return {name: ("double", noun)}
    return {
        name: ("double", f"Mean {target.noun}"),
        f"{name}_low": ("double", "Lower end of its 95 % interval"),
        f"{name}_high": ("double", "Upper end"),
    }
