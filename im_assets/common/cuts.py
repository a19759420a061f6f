"""Telling what was cut to fit into `models.max_length`: in metadata, log, check and report.

The table ``token_cuts`` holds the counts of every asset that trains, scores or measures on tokens,
by partition and source. Above `models.cut_warning` a warning is due: what is cut is neither learned
nor measured, and a source whose responses are long loses more than the others.
"""

from collections.abc import Mapping, Sequence

import dagster as dg
import pandas as pd

from im_assets.common.presentation import preview
from im_resources.language_model.cuts import COUNTS
from im_resources.study import Study
from im_resources.warehouse import Warehouse

TABLE = "token_cuts"
COLUMNS = ["asset", "partition", "source", "max_length", *COUNTS]
CHECK = "responses_are_whole"


def summed(cuts: pd.DataFrame, by: str | list[str] = "source") -> pd.DataFrame:
    """The counts by source, or by other columns."""
    return cuts.groupby(by, as_index=False)[list(COUNTS)].sum()


def share(counts: pd.DataFrame, part: str, whole: str) -> float:
    """What share of the column ``whole`` is ``part``, over all rows; 0 of nothing."""
    total = int(counts[whole].sum())
    return int(counts[part].sum()) / total if total else 0.0


def responses_cut(counts: pd.DataFrame) -> float:
    """The share of responses that were cut."""
    return share(counts, "responses_cut", "responses")


def above(counts: pd.DataFrame, most: float) -> list[str]:
    """The sources of whose responses a larger share than ``most`` was cut, that of most first."""
    return [source for source, cut in _by_source(counts) if cut > most]


def _by_source(counts: pd.DataFrame) -> list[tuple[str, float]]:
    """Each source and the share of its responses that were cut, that of most first."""
    shares = [(str(name), responses_cut(rows)) for name, rows in counts.groupby("source")]
    return sorted(shares, key=lambda each: (-each[1], each[0]))


def told(counts: pd.DataFrame, study: Study) -> str:
    """What was cut, in a sentence."""
    total = counts[list(COUNTS)].sum()

    def of(part: str, whole: str) -> str:
        return f"{total[part]:,} of {total[whole]:,} ({share(counts, part, whole):.0%})"

    nothing = f", {total['responses_left_out']:,} to nothing" if total["responses_left_out"] else ""
    turns = (
        f"; {total['turns_left_out']:,} turns of conversations are left out"
        if total["turns_left_out"]
        else ""
    )
    by_source = ", ".join(f"{name} {cut:.0%}" for name, cut in _by_source(counts)[:5])
    return (
        f"responses cut: {of('responses_cut', 'responses')}{nothing}, with "
        f"{share(counts, 'response_tokens_cut', 'response_tokens'):.0%} of all response tokens; "
        f"prompts cut: {of('prompts_cut', 'instructions')}{turns}. Prompt and response have room "
        f"for {study.models.max_length} tokens (models.max_length). Responses cut by source: "
        f"{by_source or 'none'}"
    )


def recorded(
    context: dg.AssetExecutionContext,
    cuts: pd.DataFrame,
    study: Study,
    warehouse: Warehouse,
    remedy: str = "raise models.max_length",
) -> dict[str, dict[str, dg.MetadataValue]]:
    """Write the counts of an asset's run, warn in its log where much is cut, and give metadata.

    Args:
        cuts: columns partition ('' of an asset without partitions), source, and the counts; rows
            may be examples.

    Returns:
        Metadata by partition.
    """
    asset = context.asset_key.to_user_string()
    counts = summed(cuts, ["partition", "source"])
    counts = counts.assign(asset=asset, max_length=study.models.max_length)[COLUMNS]
    where = {"asset": asset, "partition": sorted(set(counts["partition"]))}
    if where["partition"]:
        warehouse.replace_rows(TABLE, counts, where)
    if above(counts, study.models.cut_warning):
        context.log.warning(f"{told(counts, study)}; {remedy}, or leave out what is long")
    return {str(key): metadata(rows) for key, rows in counts.groupby("partition")}


def forget(
    context: dg.AssetExecutionContext, warehouse: Warehouse, partitions: Sequence[str]
) -> None:
    """Drop the counts of an asset's partitions that hold nothing any more."""
    if warehouse.has_table(TABLE):
        where = {"asset": context.asset_key.to_user_string(), "partition": list(partitions)}
        warehouse.replace_rows(TABLE, pd.DataFrame(), where)


def metadata(counts: pd.DataFrame) -> dict[str, dg.MetadataValue]:
    """What the catalog shows of the counts."""
    shown = summed(counts)
    return {
        "responses cut": dg.MetadataValue.float(responses_cut(counts)),
        "response tokens cut": dg.MetadataValue.float(
            share(counts, "response_tokens_cut", "response_tokens")
        ),
        "prompts cut": dg.MetadataValue.float(share(counts, "prompts_cut", "instructions")),
        "cut by source": preview(shown, rows=len(shown)),
    }


def cuts_check(asset: str) -> dg.AssetChecksDefinition:
    """The check ``responses_are_whole`` of an asset that records what it cuts; it warns."""

    @dg.asset_check(
        asset=asset,
        name=CHECK,
        description="Of no source, a larger share of responses than models.cut_warning is cut to "
        "fit into models.max_length",
    )
    def check(
        study: dg.ResourceParam[Study], warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.AssetCheckResult:
        """Warns with the shares of each source."""
        counts = recorded_of(warehouse, asset)
        if counts is None and warehouse.has_table(asset) and not len(warehouse.read_table(asset)):
            return dg.AssetCheckResult(passed=True, description="it holds nothing: nothing is cut")
        if counts is None:
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"what was cut is not known; materialize {asset} again",
            )
        sources = above(counts, study.models.cut_warning)
        return dg.AssetCheckResult(
            passed=not sources,
            severity=dg.AssetCheckSeverity.WARN,
            description=told(counts, study),
            metadata={
                "warns above": study.models.cut_warning,
                "sources above": sources,
                **metadata(counts),
            },
        )

    return check


def recorded_of(warehouse: Warehouse, asset: str) -> pd.DataFrame | None:
    """The counts of an asset; None where there are none."""
    if not warehouse.has_table(TABLE):
        return None
    counts = warehouse.read_table(TABLE, where={"asset": asset})
    return counts if len(counts) else None


def whole_sets(cuts: pd.DataFrame, sets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The counts of every member of several sets.

    Args:
        cuts: example_id, source, and the counts, each example once.
        sets: members (example_id) by partition key.

    Returns:
        Rows as ``recorded`` takes them.
    """
    members = [rows[["example_id"]].assign(partition=key) for key, rows in sets.items()]
    return pd.concat(members, ignore_index=True).merge(cuts, on="example_id", validate="m:1")
