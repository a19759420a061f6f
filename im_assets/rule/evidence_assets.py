"""The asset `rule_evidence`: whether to believe the rule, in one table."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.catalog import presentation
from im_assets.figures import png_markdown
from im_assets.rule.document import load_rule
from im_assets.rule.evidence import rule_findings
from im_assets.rule.evidence_figures import (
    inclusion_figure,
    learning_curve_figure,
    permutation_figure,
)
from im_assets.rule.findings import COLUMNS
from im_assets.rule.fitting import fit_rule
from im_assets.rule.unseen import largest_source
from im_resources.study import Study


@dg.asset(**presentation("rule", {"python", "duckdb", "statsmodels"}, COLUMNS))
def rule_evidence(
    context: dg.AssetExecutionContext,
    indicator_table: pd.DataFrame,
    mixed_samples: pd.DataFrame,
    quality_rule: pd.DataFrame,
    study: dg.ResourceParam[Study],
) -> dg.Output[pd.DataFrame]:
    """How far the rule can be believed: bootstrap, permutation, leave-one-source-out, diagnostics,
    learning curve and the value of chosen mixtures. With a published rule, of the rule that the
    settings would fit here."""
    rule = load_rule(quality_rule)
    if rule.source != "fitted":
        context.log.warning(f"{rule.source} was not fitted; the evidence is of a rule that is")
        rule = fit_rule(indicator_table, list(study.scoring.indicators), study.rule)
    findings = rule_findings(indicator_table, largest_source(mixed_samples), rule, study.rule)
    return dg.Output(
        findings,
        metadata={"summary": dg.MetadataValue.md(summary(findings))} | _figures(findings),
    )


def summary(findings: pd.DataFrame) -> str:
    """The findings that a reader needs first, as a Markdown list."""
    by_section = dict(list(findings.groupby("section")))
    lines = []
    permuted = by_section["permutation"].set_index("item").loc["r2"]
    lines.append(f"R² {permuted['value']:.2f}: {permuted['note']}")
    included = by_section["inclusion"].sort_values("value", ascending=False, kind="stable")
    rows = included.itertuples()
    lines.append("chosen in resamples: " + ", ".join(f"{r.item} {r.value:.0%}" for r in rows))
    pooled = by_section["leave_one_source_out"].set_index("item").loc["all"]
    if pd.notna(pooled["value"]):
        ends = f" ({pooled['low']:.2f} to {pooled['high']:.2f})" if pd.notna(pooled["low"]) else ""
        lines.append(f"Spearman on sources left out: {pooled['value']:.2f}{ends}")
    curve = by_section["learning_curve"].set_index("item")
    lines.append(f"more mixtures? {curve.loc['verdict', 'note']}")
    collinear = by_section["vif"][by_section["vif"]["note"].str.startswith("collinear")]
    if len(collinear):
        lines.append(f"collinear indicators: {', '.join(collinear['item'])}")
    tests = by_section["diagnostics"]
    lines += [f"{row.item}: {row.note}" for row in tests.itertuples() if row.note]
    return "\n".join(f"- {line}" for line in lines)


def _figures(findings: pd.DataFrame) -> dict[str, Any]:
    made = {
        "learning curve": learning_curve_figure(findings),
        "inclusion frequencies": inclusion_figure(findings),
        "permutation null": permutation_figure(findings),
    }
    return {name: png_markdown(png, name) for name, png in made.items() if png is not None}
