"""indicator_table and quality_rule: the points, and the rule fitted on them."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.figures import png_markdown
from im_assets.common.presentation import presentation, preview
from im_assets.rule.document import coefficient_table, write_rule
from im_assets.rule.figures import coefficient_figure, fit_figure, indicator_figure
from im_assets.rule.fitting import TARGET, fit_rule, rank_correlation
from im_assets.rule.indicator_table import mixture_scores, one_row_a_mixture
from im_assets.rule.model import Rule
from im_assets.rule.published import published_rule
from im_assets.scoring.batch import Models
from im_assets.scoring.registry import chosen
from im_resources.gpu import GpuResource
from im_resources.study import Study
from im_resources.warehouse import Warehouse

RULE_FILE = "quality_rule.json"

COLUMNS = {
    "term": ("text", "constant, or an indicator in the rule"),
    "estimate": ("double", "Coefficient: log loss per unit of the indicator"),
    "std_error": ("double", "Standard error; null for a published rule, as all that follows"),
    "t": ("double", "estimate / std_error"),
    "p": ("double", "Two-sided p-value; optimistic after a selection"),
    "ci_low": ("double", "Lower end of the confidence interval"),
    "ci_high": ("double", "Upper end of the confidence interval"),
    "vif": ("double", "Variance inflation factor; null for the constant"),
    "source": ("text", "fitted, published_v1 or published_v2"),
    "n": ("bigint", "Mixtures that the rule was fitted on"),
    "r2": ("double", "Share of the variance of log loss explained"),
    "adj_r2": ("double", "r2, adjusted for the number of indicators"),
    "f": ("double", "F statistic of the whole rule; null without indicators"),
    "f_p": ("double", "p-value of f"),
    "aic": ("double", "Akaike's information criterion"),
    "bic": ("double", "Bayesian information criterion"),
    "residual_std_error": ("double", "Residual standard error, in log loss"),
    "loo_spearman": ("double", "Spearman, mixtures left out, selection redone; null: undefined"),
    "loo_spearman_fixed": ("double", "The same with the indicators kept: flatters the rule"),
    "loo_rmse": ("double", "Root mean squared error on mixtures left out, in log loss"),
    "formula": ("text", "The rule as a formula"),
    "document": ("text", "The whole rule as JSON; load_rule reads it back"),
}


@dg.asset(
    deps=["example_scores", "eval_losses"],
    **presentation("rule", {"sql", "duckdb"}),
)
def indicator_table(
    mixed_samples: pd.DataFrame,
    study: dg.ResourceParam[Study],
    gpu: GpuResource,
    warehouse: dg.ResourceParam[Warehouse],
) -> dg.Output[pd.DataFrame]:
    """One row a mixture: the mean of every indicator over its members, KNN over the mixture as a
    set, the evaluation loss and its logarithm. Aggregated in sql/indicator_table.sql."""
    indicators = chosen(study.scoring)
    sets = mixture_scores(mixed_samples, indicators, Models.of(study, gpu), warehouse)
    warehouse.replace_rows("mixture_scores", sets, where={})
    long = warehouse.query("indicator_table.sql", {"weighting": study.evaluation.weighting})
    # Rows of seeds that the profile no longer names stay in the warehouse, and are not the study's.
    long = long[long["seed"].isin(set(mixed_samples["seed"]))]
    table = one_row_a_mixture(long, [i.name for i in indicators])
    schema = dg.TableSchema([dg.TableColumn(str(c), str(t)) for c, t in table.dtypes.items()])
    metadata: dict[str, Any] = {
        "mixtures": len(table),
        "lowest loss": float(table["loss"].min()),
        "highest loss": float(table["loss"].max()),
        "table": preview(table, rows=20),
        "dagster/column_schema": schema,
    }
    return dg.Output(table, metadata=metadata)


@dg.asset(**presentation("rule", {"python", "duckdb", "statsmodels"}, COLUMNS, code_version="2"))
def quality_rule(
    context: dg.AssetExecutionContext, indicator_table: pd.DataFrame, study: dg.ResourceParam[Study]
) -> dg.Output[pd.DataFrame]:
    """The linear rule that predicts log evaluation loss from indicators, one row a term.

    Fitted by least squares on the study's mixtures, its indicators chosen as `rule.choose` says, or
    one of the paper's published rules (`rule.source`). Also written as JSON to `quality_rule.json`
    in the study's folder.
    """
    indicators = list(study.scoring.indicators)
    if study.rule.source == "fitted":
        rule = fit_rule(indicator_table, indicators, study.rule)
    else:
        rule = published_rule(study.rule.source)
    for warning in rule.warnings:
        context.log.warning(warning.note)
    path = study.folder / RULE_FILE
    write_rule(rule, path)
    return dg.Output(
        coefficient_table(rule),
        metadata={
            **_numbers(rule, indicator_table),
            **_views(rule, indicator_table, indicators),
            "study": study.label or study.name,
            "document": dg.MetadataValue.path(path),
        },
    )


def _numbers(rule: Rule, table: pd.DataFrame) -> dict[str, Any]:
    """The numbers that the UI plots over time; None (shown as null) where one is undefined."""
    predicted = rule.predict(table)
    in_sample = rank_correlation(table[TARGET].to_numpy(dtype=float), predicted)
    return {
        "formula": rule.formula,
        "source": rule.source,
        "indicators chosen by": rule.choose or "the paper",
        "standard errors": rule.standard_errors or "none",
        "mixtures": len(table),
        "r2": rule.r2,
        "adjusted_r2": rule.adj_r2,
        "f": rule.f,
        "f_p": rule.f_p,
        "spearman_in_sample": in_sample,
        "loo_spearman": rule.loo_spearman,
        "loo_spearman_fixed": rule.loo_spearman_fixed,
        "loo_rmse": rule.loo_rmse,
    }


def _views(rule: Rule, table: pd.DataFrame, indicators: list[str]) -> dict[str, Any]:
    terms = pd.DataFrame([c.model_dump() for c in (rule.constant, *rule.coefficients)])
    views: dict[str, Any] = {"coefficients": preview(terms, rows=len(terms))}
    if rule.path:
        path = pd.DataFrame([s.model_dump() for s in rule.path])
        views["path"] = preview(path, rows=len(path))
    if rule.warnings:
        views["warnings"] = dg.MetadataValue.md("\n".join(f"- {w.note}" for w in rule.warnings))
    panels = indicator_figure(table, indicators, rule.indicators)
    return views | {
        "predicted_against_actual": png_markdown(fit_figure(rule, table), "predicted and actual"),
        "effects": png_markdown(coefficient_figure(rule, table), "standardised effects"),
        "indicators": png_markdown(panels, "log loss against each indicator"),
    }
