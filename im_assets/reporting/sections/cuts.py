"""What did not fit into `models.max_length`: of what was trained on, scored, and measured on."""

from im_assets.common.cuts import above, responses_cut, share, summed
from im_assets.reporting.blocks import Block, Column, Table, Text
from im_assets.reporting.gather import Gathered

MIXTURES, EVALUATION = "finetuned_adapters", "base_losses"
LONG = 12  # rows of the table from which it is behind a click


def blocks(found: Gathered) -> list[Block]:
    """The counts by asset and source, and what is above the bound in a sentence each."""
    frame = found.get("cuts")
    if frame is None:
        return []
    rows = []
    for (asset, source), counts in frame.groupby(["asset", "source"], sort=False):
        sums = summed(counts).iloc[0]
        rows.append(
            {
                "asset": asset,
                "source": source,
                "responses": int(sums["responses"]),
                "responses_cut": responses_cut(counts),
                "tokens_cut": share(counts, "response_tokens_cut", "response_tokens"),
                "responses_left_out": int(sums["responses_left_out"]),
                "prompts_cut": share(counts, "prompts_cut", "instructions"),
                "turns_left_out": int(sums["turns_left_out"]),
            }
        )
    columns = (
        Column("asset", "In", "text"),
        Column("source", "Source", "text"),
        Column("responses", "Responses", "int"),
        Column("responses_cut", "Cut", "percent"),
        Column("tokens_cut", "Of their tokens, cut", "percent"),
        Column("responses_left_out", "Cut to nothing", "int"),
        Column("prompts_cut", "Prompts cut", "percent"),
        Column("turns_left_out", "Turns left out", "int"),
    )
    note = (
        f"Prompt and response have room for {int(frame['max_length'].max())} tokens together "
        "(models.max_length). Each example counts as often as it was trained on."
    )
    table = Table("cuts", "What was cut to fit", columns, tuple(rows), folded=len(rows) > LONG)
    return [Text(note), table, *(Text(said, "warning") for said in _warnings(found))]


def sentences(found: Gathered) -> list[str]:
    """For the report's first paragraph: that much was cut, where it was."""
    frame = found.get("cuts")
    if frame is None:
        return []
    places = {MIXTURES: "trained on", EVALUATION: "of the evaluation set"}
    if found.study.fits_nothing:
        places = {f"{pool}_scores": f"of the pool {pool}" for pool in found.study.pools}
    said = []
    for asset, place in places.items():
        counts = frame[frame["asset"] == asset]
        if above(counts, found.study.models.cut_warning):
            tokens = share(counts, "response_tokens_cut", "response_tokens")
            said.append(
                f"{responses_cut(counts):.0%} of the responses {place} ({tokens:.0%} of their "
                "tokens)"
            )
    if not said:
        return []
    return [f"Mind what was cut to fit into models.max_length: {' and '.join(said)}."]


def _warnings(found: Gathered) -> list[str]:
    """Which sources lose more responses than `models.cut_warning` allows, by asset."""
    frame, most = found.get("cuts"), found.study.models.cut_warning
    if frame is None:
        return []
    return [
        f"{asset}: more than {most:.0%} of the responses of {', '.join(sources)} were cut. What is "
        "cut is neither learned nor measured, and sources with long responses lose the most."
        for asset, counts in frame.groupby("asset", sort=False)
        if (sources := above(counts, most))
    ]
