"""source_shares: what a share of each source is worth, and which mixture is proposed."""

from typing import Any

import dagster as dg
import pandas as pd

from im_assets.candidates.versions import KEY
from im_assets.common.charts.drawing import png_markdown
from im_assets.common.presentation import markdown, presentation, preview, table
from im_assets.own_runs import members_of
from im_assets.rule.target import Target
from im_assets.shares.figures import shares_figure
from im_assets.shares.telling import COLUMNS, measured_shares, sentence, shares_table
from im_assets.shares.trainers import interleaved
from im_resources.study import Study

BY_SOURCE = {"columns": KEY}  # no text of the candidates is read


def shares_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``source_shares``."""
    of = members_of(study)

    @dg.asset(
        ins={
            "candidate_datasets": dg.AssetIn(metadata=BY_SOURCE),
            "members": dg.AssetIn(of.asset),
        },
        **presentation(
            "evidence",
            {"python", "duckdb", "statsmodels"},
            COLUMNS,
            reads=("proposal", "rule.target", "rule.confidence"),
        ),
    )
    def source_shares(
        indicator_table: pd.DataFrame,
        members: pd.DataFrame,
        candidate_datasets: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> dg.Output[pd.DataFrame]:
        """What a tenth more of each source changes, by the mixtures that were finetuned on, and the
        shares that are proposed: near the data one has, and no source repeated too often. Where the
        mixtures cannot tell, the table says why."""
        target = Target.of(study)
        held = candidate_datasets["source"].astype(str).value_counts().sort_index()
        mixtures = indicator_table[indicator_table["experiment"] == "mixtures"]
        measured = mixtures.set_index("partition")[target.column]
        found = shares_table(
            measured_shares(members, list(measured.index), of.column),
            measured,
            {str(source): int(count) for source, count in held.items()},
            study.proposal,
            study.rule.confidence,
            target,
        )
        shown: dict[str, Any] = {
            "shares": preview(found, rows=len(found)),
            "answer": dg.MetadataValue.md(markdown(sentence(found, target))),
        }
        if (snippet := interleaved(found)) is not None:
            shown["LLaMA-Factory"] = dg.MetadataValue.md(f"```yaml\n{snippet}```")
        if (figure := shares_figure(found, target)) is not None:
            shown["effects"] = png_markdown(figure, "what a share is worth")
        return table(found, shown)

    return source_shares


def definitions(study: Study) -> dg.Definitions:
    """The asset of this room; none where nothing is fitted, or there is one source alone."""
    if study.fits_nothing or len(study.data.candidates) < 2:
        return dg.Definitions()
    return dg.Definitions(assets=[shares_asset(study)])
