"""The asset `proxy_transfer`, in a study that names a smaller one (`transfer.study`)."""

import dagster as dg
import pandas as pd

from im_assets.catalog import presentation, preview
from im_assets.rule.document import load_rule
from im_assets.rule.transfer import COLUMNS, transfer
from im_resources.study import Study, load_study
from im_resources.warehouse import Warehouse, WarehouseError


def transfer_assets(study: Study) -> list[dg.AssetsDefinition]:
    """`proxy_transfer`, or nothing when the study has no `transfer`."""
    if study.transfer is None:
        return []
    profile = study.transfer.study

    @dg.asset(**presentation("rule", {"python", "duckdb"}, COLUMNS))
    def proxy_transfer(
        indicator_table: pd.DataFrame,
        mixed_samples: pd.DataFrame,
        study: dg.ResourceParam[Study],
    ) -> dg.Output[pd.DataFrame]:
        """Whether the rule of the smaller study `transfer.study` ranks this study's mixtures, and
        whether both models' losses rank the mixtures that they share alike."""
        smaller = load_study(profile)
        rule, small, drawn = (
            read_smaller(smaller, name)
            for name in ("quality_rule", "indicator_table", "mixed_samples")
        )
        table = transfer(
            load_rule(rule),
            small,
            indicator_table,
            same_members(drawn, mixed_samples),
            study.rule.confidence,
        )
        return dg.Output(
            table,
            metadata={
                "agreement": preview(table, rows=len(table)),
                "smaller study": f"{smaller.name} {smaller.label}".strip(),
            },
        )

    return [proxy_transfer]


def read_smaller(smaller: Study, table: str) -> pd.DataFrame:
    """A table of the smaller study. Raises WarehouseError that says to run that study first."""
    # A warehouse is made on first use, and one of a study that never ran must not be.
    if not smaller.warehouse.is_file():
        raise WarehouseError(
            f"transfer.study: the study {smaller.name!r} has no warehouse at {smaller.warehouse}; "
            "materialize it first"
        )
    return Warehouse(smaller.warehouse).read_table(table)


def same_members(small: pd.DataFrame, large: pd.DataFrame) -> bool:
    """Whether the seeds that both studies have draw the same examples (mixed_samples tables)."""
    common = set(small["seed"]) & set(large["seed"])
    members = [
        frame[frame["seed"].isin(common)].groupby("seed")["example_id"].agg(frozenset).to_dict()
        for frame in (small, large)
    ]
    return members[0] == members[1]
