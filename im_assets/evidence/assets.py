"""rule_evidence: whether to believe the rule, in one table; and proxy_transfer."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.presentation import markdown, presentation, preview, table
from im_assets.common.versions import content_version
from im_assets.evidence.evidence import rule_findings
from im_assets.evidence.figures import (
    decision_figure,
    design_figure,
    inclusion_figure,
    learning_curve_figure,
    left_out_figure,
    permutation_figure,
    residual_figure,
)
from im_assets.evidence.findings import COLUMNS
from im_assets.evidence.measures import COLUMNS as AGREEMENT_COLUMNS
from im_assets.evidence.measures import measure_agreement
from im_assets.evidence.transfer import COLUMNS as TRANSFER_COLUMNS
from im_assets.evidence.transfer import transfer
from im_assets.experiments.lineage import LineageError
from im_assets.experiments.measures import beside_target
from im_assets.rule.choosing import keys_of
from im_assets.rule.document import load_rule
from im_assets.rule.target import Target
from im_resources.deployment.making import warehouse_of
from im_resources.study import Study, load_study
from im_resources.warehouse import WarehouseError

RULE_ID = {"rule_id": ("text", "Fingerprint of the rule that the evidence is about")}


@dg.asset(
    **presentation(
        "evidence",
        {"python", "duckdb", "statsmodels"},
        COLUMNS | RULE_ID,
        code_version="3",
        reads=("rule",),
    )
)
def rule_evidence(
    indicator_table: pd.DataFrame,
    quality_rule: pd.DataFrame,
    study: dg.ResourceParam[Study],
) -> dg.Output[pd.DataFrame]:
    """How far the rule can be believed: bootstrap, permutation, leave-one-source-out, diagnostics,
    learning curve, the value of chosen mixtures, and decisions beside those of rivals. Of a fitted
    rule; a published one was fitted elsewhere."""
    rule = load_rule(quality_rule)
    if rule.points_id not in ("", content_version(indicator_table)):
        raise LineageError(
            f"the rule {rule.id} was fitted on other points than indicator_table holds now; "
            "materialize quality_rule, and what follows"
        )
    sources, experiments = (
        dict(zip(keys_of(indicator_table), indicator_table[column], strict=True))
        for column in ("largest_source", "experiment")
    )
    drawn_from = len(study.data.candidates) if study.rule.points == ("mixtures",) else None
    findings = rule_findings(
        indicator_table,
        sources,
        rule,
        study.rule,
        experiments,
        drawn_from,
        drawn=study.runs is None,
    )
    shown = {"rule": rule.id, "summary": dg.MetadataValue.md(summary(findings))}
    return table(findings.assign(rule_id=rule.id), shown | _figures(findings, rule.predicts))


def summary(findings: pd.DataFrame) -> str:
    """The findings that a reader needs first, as a Markdown list."""
    rows: dict[str, list[Any]] = {
        str(name): list(part.itertuples()) for name, part in findings.groupby("section")
    }
    fit = next(r for r in rows["permutation"] if r.item == "loo_r2")
    often = sorted(rows["inclusion"], key=lambda r: -r.value)
    pooled = next(r for r in rows["leave_one_source_out"] if r.item == "all")
    verdict = next(r for r in rows["learning_curve"] if r.item == "verdict")
    lines = [
        f"R² on mixtures left out {fit.value:.2f}: {fit.note}",
        "chosen in resamples: " + ", ".join(f"{r.item} {r.value:.0%}" for r in often),
    ]
    if pd.notna(pooled.value):
        ends = f" ({pooled.low:.2f} to {pooled.high:.2f})" if pd.notna(pooled.low) else ""
        lines.append(f"Spearman on sources left out: {pooled.value:.2f}{ends}")
    lines.append(f"more mixtures? {verdict.note}")
    right = next(r for r in rows["decision_accuracy"] if r.item == "rule")
    if pd.notna(right.value):
        lines.append(
            f"pairs ordered rightly: {right.value:.0%} ({right.low:.0%} to {right.high:.0%}; goal "
            f"{right.goal:.0%}: {right.verdict})"
        )
    if collinear := [r.item for r in rows["vif"] if r.verdict == "collinear"]:
        lines.append(f"collinear indicators: {', '.join(collinear)}")
    if bent := [r.item for r in rows.get("shape", []) if r.verdict == "chosen"]:
        lines.append(f"shape of the rule: {bent[0].replace('_', ' ')}")
    lines += [f"{r.item}: {r.note}" for r in rows.get("diagnostics", []) if r.note]
    return "\n".join(f"- {markdown(line)}" for line in lines)


def _figures(findings: pd.DataFrame, target: Target) -> dict[str, Any]:
    made = {
        "learning curve": learning_curve_figure(findings),
        "inclusion frequencies": inclusion_figure(findings),
        "permutation null": permutation_figure(findings, target.plural),
        "left-out sources": left_out_figure(findings, target.measure_label),
        "chosen mixtures": design_figure(findings),
        "decisions": decision_figure(findings),
        "residuals": residual_figure(findings, target.label),
    }
    return {name: png_markdown(f, name) for name, f in made.items() if f is not None}


def transfer_asset(study: Study, profile: str) -> dg.AssetsDefinition:
    """`proxy_transfer`, in a study that names a smaller one (`transfer.study`)."""

    @dg.asset(
        **presentation(
            "evidence",
            {"python", "duckdb"},
            TRANSFER_COLUMNS,
            code_version="2",
            reads=("transfer", "rule.confidence"),
        )
    )
    def proxy_transfer(
        indicator_table: pd.DataFrame, study: dg.ResourceParam[Study]
    ) -> dg.Output[pd.DataFrame]:
        """Whether the rule of the smaller study `transfer.study` ranks this study's mixtures, and
        whether both models' losses rank the mixtures that they share alike."""
        smaller = load_study(profile)
        rule, small = (read_smaller(smaller, name) for name in ("quality_rule", "indicator_table"))
        found = transfer(load_rule(rule), small, indicator_table, study.rule.confidence)
        return table(
            found,
            {
                "agreement": preview(found, rows=len(found)),
                "smaller study": f"{smaller.name} {smaller.label}".strip(),
            },
        )

    return proxy_transfer


@dg.asset(
    name="measure_agreement",
    **presentation(
        "evidence",
        {"python", "duckdb"},
        AGREEMENT_COLUMNS,
        reads=("evaluation.measures", "rule.target", "rule.confidence"),
    ),
)
def agreement(
    indicator_table: pd.DataFrame, study: dg.ResourceParam[Study]
) -> dg.Output[pd.DataFrame]:
    """Whether what the study measures beside the rule's target ranks its sets as the target does:
    is the loss the right target here?"""
    target, others = Target.of(study), beside_target(study)
    found = measure_agreement(indicator_table, target, others, study.rule.confidence)
    return table(found, {"agreement": preview(found, rows=len(found))})


def definitions(study: Study) -> dg.Definitions:
    """The assets of this room: evidence is of a fitted rule, transfer of a study that names one,
    agreement of one that measures several things; none where nothing is fitted."""
    if study.fits_nothing:
        return dg.Definitions()
    assets: list[dg.AssetsDefinition] = [agreement] if beside_target(study) else []
    if study.rule.source == "fitted":
        assets.append(rule_evidence)
    if study.transfer is not None:
        assets.append(transfer_asset(study, study.transfer.study))
    return dg.Definitions(assets=assets)


def read_smaller(smaller: Study, table: str) -> pd.DataFrame:
    """A table of the smaller study. Raises WarehouseError that says to run that study first."""
    warehouse = warehouse_of(smaller)
    if not warehouse.exists():
        raise WarehouseError(
            f"transfer.study: the study {smaller.name!r} has no warehouse at {warehouse.name}; "
            "materialize it first"
        )
    return warehouse.read_table(table)
