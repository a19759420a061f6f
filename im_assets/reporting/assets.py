"""study_report: the study on one page, for its readers."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from im_assets.common.charts.drawing import png_markdown
from im_assets.common.exports import published
from im_assets.common.presentation import markdown, presentation
from im_assets.experiments.measures import beside_target, rows_read
from im_assets.own_runs import RUNS
from im_assets.reporting.blocks import Facts, Text
from im_assets.reporting.gather import Gathered, gather
from im_assets.reporting.report import FIGURES, NUMBERS, Report, make_report, write_report
from im_assets.reporting.sections.settings import versions
from im_assets.rule.figures import fit_figure
from im_assets.validation.figures import verdict_figure
from im_resources.study import Study
from im_resources.warehouse import Warehouse

FOLDER = "report"
POOL_TABLES = ("dataset", "scores", "indicators", "selection")
ALWAYS = (
    "quality_rule", "indicator_table", "base_losses", "mixed_samples", "candidate_datasets",
    "eval_set", "eval_losses",
)  # fmt: skip


def report_dependencies(study: Study) -> list[str]:
    """The assets that the report of this study shows."""
    validation = study.validation
    pools = [f"{pool}_{kind}" for pool in study.pools for kind in POOL_TABLES]
    if study.trains_nothing:
        measured = ["eval_set"] if study.data.evaluation is not None else []
        return ["quality_rule", *measured, *_of_runs(study), *pools]
    parts = [
        (study.rule.source == "fitted", ("rule_evidence",)),
        (len(study.data.candidates) > 1, ("source_shares",)),
        (study.mining is not None, ("mining_rounds",)),
        (study.univariate is not None, ("univariate_study", "univariate_bins")),
        (validation is not None, ("selection_validation", "noise_floor", "validation_runs")),
        (validation is not None, ("selection_costs", "registered_analysis")),
        (study.data.second_evaluation is not None, ("second_validation",)),
        (validation is not None and validation.deciles > 0, ("rule_deciles",)),
        (study.judge is not None and validation is not None, ("pairwise_judge",)),
        (bool(beside_target(study)), ("measure_agreement",)),
        (bool(rows_read(study)), ("base_answers",)),
        (study.transfer is not None, ("proxy_transfer",)),
        (study.selection.size == "searched", ("size_search",)),
    ]
    return [*ALWAYS, *pools, *(name for wanted, names in parts if wanted for name in names)]


def _of_runs(study: Study) -> list[str]:
    """What there is beside of a study of own runs."""
    if study.runs is None:
        return []
    shares = ["source_shares"] if len(study.data.candidates) > 1 else []
    return ["indicator_table", RUNS, "candidate_datasets", "rule_evidence", *shares]


def definitions(study: Study) -> dg.Definitions:
    """The assets of this room."""

    @dg.asset(
        deps=report_dependencies(study),
        **presentation("reporting", {"python", "html"}),
    )
    def study_report(
        study: dg.ResourceParam[Study], warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult[Any]:
        """One page with question, answer, rule, evidence and selected examples, readable without a
        network; beside it every figure as SVG and every number as JSON."""
        found = gather(study, warehouse, with_rows=True)
        made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        report = make_report(found, True, versions(), made)
        page = write_report(report, study.folder / FOLDER)
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(page),
                "link": dg.MetadataValue.url(page.as_uri()),
                "numbers": dg.MetadataValue.path(page.parent / NUMBERS),
                "figures": dg.MetadataValue.path(page.parent / FIGURES),
                **published(study, page.parent),
                "preview": dg.MetadataValue.md(headline(report)),
                "study": study.label or study.name,
                **_figures(found),
            }
        )

    return dg.Definitions(assets=[study_report])


def headline(report: Report) -> str:
    """The report's answer and its headline numbers, as Markdown."""
    blocks = report.section("answer").blocks
    texts = [b.text for b in blocks if isinstance(b, Text)]
    facts = [f for b in blocks if isinstance(b, Facts) for f in b.items]
    lines = [f"| {markdown(f.label)} | {markdown(f'{f.text} {f.unit}')} |" for f in facts]
    head = "\n\n| | |\n|---|---|\n" if lines else ""
    return "\n\n".join(map(markdown, texts)) + head + "\n".join(lines)


def _figures(found: Gathered) -> dict[str, dg.MetadataValue[Any]]:
    figures: dict[str, dg.MetadataValue[Any]] = {}
    table, rule = found.get("indicator_table"), found.rule
    if table is not None and rule is not None and rule.predicts.column in table:
        alt = f"predicted against actual {rule.predicts.label}"
        figures["rule"] = png_markdown(fit_figure(rule, table), alt)
    verdicts = found.get("selection_validation")
    if found.study.validation is not None and verdicts is not None:
        chart = verdict_figure(verdicts, found.get("validation_runs"), found.target)
        alt = f"{found.target.measure_label} of each strategy"
        figures["validation"] = png_markdown(chart, alt)
    return figures
