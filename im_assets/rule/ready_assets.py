"""quality_rule of a study that fits none: a ready rule, and whether it is applied as fitted."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.exports import published
from im_assets.common.presentation import markdown, presentation, preview, table
from im_assets.common.versions import with_version
from im_assets.rule.document import RULE_FILE, coefficient_table, load_rule, write_rule
from im_assets.rule.provenance import BLOCKING, KINDS
from im_assets.rule.ready import applied_rule, ready_rule
from im_assets.scoring.batch import Models
from im_resources.gpu import GpuResource
from im_resources.study import Study


def ready_rule_asset(study: Study, columns: Mapping[str, tuple[str, str]]) -> dg.AssetsDefinition:
    """The asset ``quality_rule``, made from nothing; another rule in its file is another version.

    Args:
        columns: of the table of coefficients.
    """

    @dg.asset(
        **presentation(
            "rule",
            {"python", "duckdb"},
            columns,
            reads=("rule.source", "rule.target", "scoring.indicators", "models"),
        )
    )
    def quality_rule(
        context: dg.AssetExecutionContext, study: dg.ResourceParam[Study], gpu: GpuResource
    ) -> dg.Output[pd.DataFrame]:
        """The ready rule that the pools are ranked by, one row a term: one of the paper's, or of a
        file that another study wrote (`rule.source`). Nothing of it is fitted here. Also written as
        JSON to `quality_rule.json`, with what is not as it was when it was fitted."""
        rule = applied_rule(study, Models.of(study, gpu))
        for warning in rule.warnings:
            context.log.warning(warning.note)
        path = study.folder / RULE_FILE
        write_rule(rule, path)
        terms = pd.DataFrame([c.model_dump() for c in (rule.constant, *rule.terms)])
        metadata: dict[str, Any] = {
            "formula": rule.formula,
            "source": rule.source,
            "reference": rule.reference,
            "fitted by": rule.fitted_by or None,
            "beyond chance": rule.beyond_chance,
            "coefficients": preview(terms, rows=len(terms)),
            "rule_id": rule.id,
            "study": study.label or study.name,
            "document": dg.MetadataValue.path(path),
            **published(study, path),
        }
        if rule.warnings:
            lines = (f"- {markdown(warning.note)}" for warning in rule.warnings)
            metadata["warnings"] = dg.MetadataValue.md("\n".join(lines))
        return table(coefficient_table(rule), metadata)

    return with_version(quality_rule, ready_rule(study.rule).id)


@dg.asset_check(asset="quality_rule", name="applied_as_fitted", blocking=True)
def applied_as_fitted(quality_rule: pd.DataFrame) -> dg.AssetCheckResult:
    """The rule's indicators are computed with what they were computed with when it was fitted.

    An error where a fitted rule would read other numbers: nothing is selected by them. A warning
    where the ranking is possible and unproven, as a published rule's with other models is."""
    cautions = [warning for warning in load_rule(quality_rule).warnings if warning.kind in KINDS]
    blocks = any(caution.kind == BLOCKING for caution in cautions)
    severity = dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=not cautions,
        severity=severity,
        description=" ".join(caution.note for caution in cautions)
        or "every indicator of the rule is computed as it was when it was fitted",
        metadata={"differences": len(cautions), "blocking": blocks},
    )
