"""indicator_table and quality_rule: the points, and the rule that is fitted on them."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.exports import published
from im_assets.common.presentation import markdown, presentation, preview, table
from im_assets.common.versions import with_version
from im_assets.experiments.checks import parts_agree_check
from im_assets.experiments.holdout import split_of
from im_assets.experiments.points import Parts, points_of
from im_assets.mixtures.experiment import SERIES
from im_assets.rule.checks import (
    HOLDS,
    indicator_table_is_finite,
    indicators_are_not_collinear,
    still_holds,
)
from im_assets.rule.document import RULE_FILE, TERM_NUMBERS, coefficient_table, write_rule
from im_assets.rule.figures import coefficient_figure, curve_figure, fit_figure, indicator_figure
from im_assets.rule.fitted import fitted_rule
from im_assets.rule.fitting import rank_correlation
from im_assets.rule.model import Rule
from im_assets.rule.point_experiments import point_experiments
from im_assets.rule.points import (
    MEASURED,
    require_points,
    require_scale,
    selections_measured,
    still_valid,
)
from im_assets.rule.ready import applied_rule, ready_rule, transform_of
from im_assets.rule.ready_assets import applied_as_fitted, ready_rule_asset
from im_assets.rule.target import Target
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_assets.validation.experiment import validation_experiment
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

MEASURING = ("evaluation.weighting", "evaluation.measures", "rule.target")
# Of `rule`, all but what only the points (rule.points) or the evidence (resamples) depend on.
FITTING = (
    "rule.source", "rule.target", "rule.choose", "rule.criterion", "rule.direction", "rule.p_enter",
    "rule.p_remove", "rule.max_indicators", "rule.confidence", "rule.standard_errors",
    "rule.transform", "rule.winsorize", "rule.shapes", "rule.permutations",
)  # fmt: skip

COLUMNS = {
    "term": ("text", "constant, or an indicator in the rule"),
    "estimate": (
        "double",
        "Coefficient: log loss per unit of the indicator on the rule's scale; null for a curve",
    ),
    "std_error": (
        "double",
        "Standard error; it ignores that the indicators were chosen by the "
        "same losses, and is too small; null for a published rule, as all that follows",
    ),
    "ci_low": ("double", "Lower end of the confidence interval, which ignores the choice too"),
    "ci_high": ("double", "Upper end"),
    "vif": ("double", "Variance inflation factor; null for the constant"),
    "low": ("double", "Least value of the indicator over the points, on the rule's scale"),
    "high": ("double", "Highest value over the points"),
    "source": ("text", "fitted (here, or by another study), published_v1 or published_v2"),
    "n": ("bigint", "Mixtures that the rule was fitted on"),
    "r2": ("double", "Share of the variance of log loss explained"),
    "adj_r2": ("double", "r2, adjusted for the number of indicators"),
    "f": ("double", "F statistic of the whole rule; no test, since its indicators were chosen"),
    "aic": ("double", "Akaike's information criterion"),
    "bic": ("double", "Bayesian information criterion"),
    "residual_std_error": ("double", "Residual standard error, in log loss"),
    "loo_spearman": ("double", "Spearman, mixtures left out, selection redone; null: undefined"),
    "loo_spearman_low": ("double", "Lower end of its interval over mixtures"),
    "loo_spearman_high": ("double", "Upper end"),
    "loo_spearman_fixed": ("double", "The same with the indicators kept: flatters the rule"),
    "loo_rmse": ("double", "Root mean squared error on mixtures left out, in log loss"),
    "formula": ("text", "The rule as a formula"),
    "rule_id": ("text", "Fingerprint of the rule; verdicts about it carry it"),
    "document": ("text", "The whole rule as JSON; load_rule reads it back"),
}


def points_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``indicator_table``: the points of the experiments in ``rule.points``."""
    experiments = point_experiments(study)
    tables_read = dict.fromkeys(name for e in experiments for name in Parts.names(e))
    earlier = [MEASURED] if "validation" in study.rule.points else []

    @dg.asset(
        ins={name: dg.AssetIn(name) for name in (*tables_read, *earlier)},
        deps=list(dict.fromkeys(e.scores for e in experiments)),  # aggregated in SQL
        check_specs=[HOLDS],
        **presentation(
            "rule",
            {"sql", "duckdb"},
            code_version="3",
            reads=(
                "rule.points",
                "rule.source",
                "rule.transform",
                *MEASURING,
                "evaluation.holdout",
                "scoring.indicators",
                "models",
            ),
        ),
    )
    def indicator_table(
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
        **tables: pd.DataFrame,
    ) -> Iterator[dg.Output[pd.DataFrame] | dg.AssetCheckResult]:
        """One row a point, a measured trial: the mean of every indicator over its set's members on
        the scale of `rule.transform`, KNN over the set as such, the evaluation loss and its
        logarithm, and what else is measured. Only trials whose set, finetune and losses belong
        together; the check of the same name tells of the others. With `evaluation.holdout`, losses
        on the instructions that are not held out."""
        indicators, models = chosen(study.scoring), Models.of(study, gpu)
        found, fitting = [], split_of(tables["eval_set"], study.evaluation).fitting
        for experiment in experiments:
            parts = Parts.of(experiment, tables)
            good = parts.without(parts.faults(tables["eval_set"], study, gpu))
            found.append(points_of(good.on(fitting), indicators, study, models, warehouse))
        found += [still_valid(tables[name], study, gpu, tables["eval_set"]) for name in earlier]
        points = pd.concat([p for p in found if len(p)] or found[:1], ignore_index=True)
        metadata = {"measured on": fitting.words, **points_metadata(points, study)}
        # Here, and not in a step of its own: the next rule may be fitted before that one runs.
        yield still_holds(points, study, warehouse)
        yield table(points, metadata)

    return indicator_table


def points_metadata(points: pd.DataFrame, study: Study) -> dict[str, Any]:
    """What the catalog shows of a table of points."""
    schema = [
        dg.TableColumn(
            str(c), str(t), _scale_words(study) if c in study.scoring.indicators else None
        )
        for c, t in points.dtypes.items()
    ]
    target = Target.of(study)
    values = points[target.measure] if len(points) else pd.Series(dtype="float64")
    counts = points["experiment"].value_counts()
    by_experiment = {str(name): int(count) for name, count in counts.items()}
    return {
        "points": len(points),
        "by experiment": dg.MetadataValue.json(by_experiment),
        f"lowest {target.measure_label}": float(values.min()) if len(points) else None,
        f"highest {target.measure_label}": float(values.max()) if len(points) else None,
        "table": preview(points, rows=20),
        "dagster/column_schema": dg.TableSchema(schema),
    }


def measured_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``measured_selections``, where ``rule.points`` names the validation."""
    experiment = validation_experiment(study)

    @dg.asset(
        deps=["eval_set", experiment.pool, experiment.scores],
        **presentation(
            "rule",
            {"python", "duckdb"},
            reads=("scoring.indicators", *MEASURING, "evaluation.holdout", "models"),
        ),
    )
    def measured_selections(
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.Output[pd.DataFrame]:
        """The selections that were measured for earlier rules, as points for the next fit. It keeps
        what validations left in the warehouse: a dependency on them would be a circle."""
        points = selections_measured(study, gpu, warehouse)
        return table(points, {"points": len(points), "table": preview(points, rows=20)})

    return measured_selections


def rule_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``quality_rule``, which is made from the points and from what says which there have
    to be."""
    told_by = [name for e in point_experiments(study) for name in e.told_by]
    told_by = [] if study.trains_nothing else [SERIES, *told_by]

    @dg.asset(
        ins={name: dg.AssetIn(name) for name in dict.fromkeys(["indicator_table", *told_by])},
        **presentation(
            "rule",
            {"python", "duckdb", "statsmodels"},
            COLUMNS,
            code_version="5",
            reads=(*FITTING, "scoring.indicators"),
        ),
    )
    def quality_rule(
        context: dg.AssetExecutionContext,
        indicator_table: pd.DataFrame,
        study: dg.ResourceParam[Study],
        gpu: GpuResource,
        **told_by: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        """The linear rule that predicts log evaluation loss (or `rule.target`) from indicators, one
        row a term.

        Fitted by least squares on the study's points, its indicators chosen as `rule.choose` says,
        or a ready one (`rule.source`). Also written as JSON to `quality_rule.json` in the study's
        folder.
        """
        indicators, models = list(study.scoring.indicators), Models.of(study, gpu)
        fits = study.rule.source == "fitted"
        if fits and not study.trains_nothing:
            require_points(indicator_table, study, told_by)
        require_scale(indicator_table, study)
        rule = fitted_rule(indicator_table, study, models) if fits else applied_rule(study, models)
        for warning in rule.warnings:
            context.log.warning(warning.note)
        path = study.folder / RULE_FILE
        write_rule(rule, path)
        return table(
            coefficient_table(rule),
            {
                **rule_metadata(rule, indicator_table, indicators),
                "study": study.label or study.name,
                "document": dg.MetadataValue.path(path),
                **published(study, path),
            },
        )

    return quality_rule


def rule_metadata(rule: Rule, points: pd.DataFrame, indicators: list[str]) -> dict[str, Any]:
    """What the catalog shows of a rule and the points that it was fitted on, or applied to."""
    return {
        **_numbers(rule, points),
        **_views(rule, points, indicators),
        "rule_id": rule.id,
    }


def definitions(study: Study) -> dg.Definitions:
    """The assets and checks of this room."""
    ready = [] if study.rule.source == "fitted" else [applied_as_fitted]
    if study.fits_nothing:
        return dg.Definitions(
            assets=[ready_rule_asset(study, COLUMNS)],
            asset_checks=[indicators_are_not_collinear, *ready],
        )
    if study.runs is not None:  # its points are made in own_runs
        checks = [indicator_table_is_finite, indicators_are_not_collinear]
        return dg.Definitions(assets=[rule_asset(study)], asset_checks=checks)
    measured = [measured_asset(study)] if "validation" in study.rule.points else []
    rule = rule_asset(study)
    if study.rule.source == "file":  # another rule in it is another version
        rule = with_version(rule, ready_rule(study.rule).id)
    return dg.Definitions(
        assets=[*measured, points_asset(study), rule],
        asset_checks=[
            indicator_table_is_finite,
            indicators_are_not_collinear,
            *ready,
            *(parts_agree_check(e, "indicator_table") for e in point_experiments(study)),
        ],
    )


def _scale_words(study: Study) -> str:
    """What stands in a column of an indicator."""
    if transform_of(study) == "none":
        return "Mean over the set's examples, or the set's own"
    return "Mean over the set's examples of sign(v) ln(1 + |v|), or that of the set's own value"


def _numbers(rule: Rule, table: pd.DataFrame) -> dict[str, Any]:
    """The numbers that the UI plots over time; None (shown as null) where one is undefined."""
    predicted = rule.predict_points(table)
    actual = table[rule.predicts.column].to_numpy(dtype=float)
    in_sample = rank_correlation(actual, predicted)
    return {
        "formula": rule.formula,
        "source": rule.source,
        "shape": rule.shape,
        "indicators chosen by": rule.choose or "the paper",
        "standard errors": rule.standard_errors or "none",
        "mixtures": len(table),
        "r2": rule.r2,
        "adjusted_r2": rule.adj_r2,
        "f": rule.f,
        "chance_p": rule.chance and rule.chance.loo_r2.p,
        "beyond chance": rule.beyond_chance,
        "spearman_in_sample": in_sample,
        "loo_spearman": rule.loo_spearman,
        "loo_spearman_low": rule.loo_spearman_low,
        "loo_spearman_high": rule.loo_spearman_high,
        "loo_spearman_fixed": rule.loo_spearman_fixed,
        "loo_rmse": rule.loo_rmse,
    }


def _views(rule: Rule, table: pd.DataFrame, indicators: list[str]) -> dict[str, Any]:
    told = ["name", *TERM_NUMBERS]
    terms = pd.DataFrame([t.model_dump() for t in (rule.constant, *rule.terms)])
    views: dict[str, Any] = {"coefficients": preview(terms.reindex(columns=told), rows=len(terms))}
    if rule.path:
        path = pd.DataFrame([s.model_dump(exclude={"p"}) for s in rule.path])
        views["path"] = preview(path, rows=len(path))
    if rule.warnings:
        views["warnings"] = dg.MetadataValue.md(
            "\n".join(f"- {markdown(w.note)}" for w in rule.warnings)
        )
    if rule.shapes:
        compared = pd.DataFrame([shape.model_dump() for shape in rule.shapes])
        views["shapes"] = preview(compared, rows=len(compared))
    if curves := curve_figure(rule):
        views["curves"] = png_markdown(curves, "what each indicator adds")
    if effects := coefficient_figure(rule, table):
        views["effects"] = png_markdown(effects, "standardised effects")
    panels = indicator_figure(table, indicators, rule.indicators, rule.predicts)
    return views | {
        "predicted_against_actual": png_markdown(fit_figure(rule, table), "predicted and actual"),
        "indicators": png_markdown(panels, f"{rule.predicts.label} against each indicator"),
    }
