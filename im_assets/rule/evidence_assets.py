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
from im_assets.rule.unseen import largest_source
from im_resources.study import Study


@dg.asset(**presentation("rule", {"python", "duckdb", "statsmodels"}, COLUMNS))
def rule_evidence(
    indicator_table: pd.DataFrame,
    mixed_samples: pd.DataFrame,
    quality_rule: pd.DataFrame,
    study: dg.ResourceParam[Study],
) -> dg.Output[pd.DataFrame]:
    """How far the rule can be believed: bootstrap, permutation, leave-one-source-out, diagnostics,
    learning curve and the value of chosen mixtures. Of a fitted rule; a published one was fitted
    elsewhere."""
    rule = load_rule(quality_rule)
    findings = rule_findings(indicator_table, largest_source(mixed_samples), rule, study.rule)
    return dg.Output(
        findings,
        metadata={"summary": dg.MetadataValue.md(summary(findings))} | _figures(findings),
    )


def summary(findings: pd.DataFrame) -> str:
    """The findings that a reader needs first, as a Markdown list."""
    rows: dict[str, list[Any]] = {
        str(name): list(part.itertuples()) for name, part in findings.groupby("section")
    }
    fit = next(r for r in rows["permutation"] if r.item == "r2")
    often = sorted(rows["inclusion"], key=lambda r: -r.value)
    pooled = next(r for r in rows["leave_one_source_out"] if r.item == "all")
    verdict = next(r for r in rows["learning_curve"] if r.item == "verdict")
    lines = [
        f"R² {fit.value:.2f}: {fit.note}",
        "chosen in resamples: " + ", ".join(f"{r.item} {r.value:.0%}" for r in often),
    ]
    if pd.notna(pooled.value):
        ends = f" ({pooled.low:.2f} to {pooled.high:.2f})" if pd.notna(pooled.low) else ""
        lines.append(f"Spearman on sources left out: {pooled.value:.2f}{ends}")
    lines.append(f"more mixtures? {verdict.note}")
    if collinear := [r.item for r in rows["vif"] if r.note.startswith("collinear")]:
        lines.append(f"collinear indicators: {', '.join(collinear)}")
    lines += [f"{r.item}: {r.note}" for r in rows["diagnostics"] if r.note]
    return "\n".join(f"- {line}" for line in lines)


def _figures(findings: pd.DataFrame) -> dict[str, Any]:
    made = {
        "learning curve": learning_curve_figure(findings),
        "inclusion frequencies": inclusion_figure(findings),
        "permutation null": permutation_figure(findings),
    }
    return {name: png_markdown(png, name) for name, png in made.items() if png is not None}
