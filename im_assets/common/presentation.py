"""How the assets present themselves in Dagster's catalog: owners, column schemas, previews."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.common.versions import READS, content_version
from im_resources.deployment import load_deployment
from im_resources.texts import one_line

OWNERS = ["team:instruction-mining"]
JOB = "job"  # the metadata entry with the job that makes an asset, where its group has several


def presentation(
    group: str,
    kinds: set[str],
    columns: Mapping[str, tuple[str, str]] | None = None,
    *,
    code_version: str | None = "1",
    reads: Sequence[str] = (),
    partition_column: str | None = None,
    gpu: bool = False,
) -> dict[str, Any]:
    """What every asset of ours tells Dagster: group, owners, kinds, column schema, backfills.

    Args:
        columns: the table's columns as ``{name: (type, description)}``.
        code_version: changes when the same input and settings would give another result; None: the
            asset records what came from outside.
        reads: the settings that the asset reads, as dotted paths (see versions).
        partition_column: the column that holds the partition key, for a partitioned table.
        gpu: whether models run in the step, so that it waits for a slot (``model_pool``).
    """
    metadata: dict[str, Any] = {} if columns is None else column_schema(columns)
    if reads:
        metadata[READS] = list(reads)
    if partition_column is not None:
        metadata["partition_expr"] = partition_column
    return {
        "group_name": group,
        "owners": OWNERS,
        "kinds": kinds,
        "code_version": code_version,
        "pool": model_pool() if gpu else None,
        # A range of partitions is one run, so that the base model is loaded once.
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "metadata": metadata,
    }


def model_pool() -> str | None:
    """The pool of the steps that run models: on one machine they share its GPU. On a cluster Ray
    gives out what there is, and several steps may send their work at once."""
    return "gpu" if load_deployment().executor.kind == "local" else None


def table(
    frame: pd.DataFrame, metadata: Mapping[str, Any] | None = None, version: str | None = None
) -> dg.Output[pd.DataFrame]:
    """A table as an asset returns it, with the data version of its content (or ``version``)."""
    return dg.Output(
        frame,
        metadata=dict(metadata or {}),
        data_version=dg.DataVersion(version or content_version(frame)),
    )


def column_schema(columns: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Asset metadata that declares a table's columns as ``{name: (type, description)}``."""
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name, type=type_, description=text)
                for name, (type_, text) in columns.items()
            ]
        )
    }


def preview(frame: pd.DataFrame, rows: int = 5, width: int = 120) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table, long texts cut to ``width`` characters."""

    def cell(value: object) -> str:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return markdown(one_line(text, width))

    head = frame.head(rows)
    lines = ["| " + " | ".join(map(cell, head.columns)) + " |", "|" + "---|" * len(head.columns)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in head.itertuples(index=False)]
    return dg.MetadataValue.md("\n".join(lines))


def markdown(text: str) -> str:
    """Markdown that shows this text as it is.

    Every sign that could mean something is escaped (https://spec.commonmark.org/0.31.2, 2.4):
    Dagster's UI draws images from any address, and its own address would act on the study.
    """
    return re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", text)
