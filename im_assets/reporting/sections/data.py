"""The data: what came in, what was put aside and why, and what it is measured on."""

from im_assets.own_runs import members_of
from im_assets.reporting.blocks import Block, Column, Fact, Facts, Section, Table, Text
from im_assets.reporting.gather import Gathered
from im_assets.reporting.sections import cuts
from im_assets.reporting.sections.absent import not_made

KEY, TITLE = "data", "The data"
LONG = 12  # rows of a table from which it is behind a click


def section(found: Gathered) -> Section:
    """Sources, quarantine, evaluation set, unseen pool."""
    sources = found.get("sources")
    if sources is None:
        return not_made(KEY, TITLE, "candidate_datasets", members_of(found.study).asset)
    facts = [
        Fact("candidates", "candidate examples kept", int(sources["kept"].sum()), "int"),
        *unseen(found),
    ]
    evaluation = found.get("evaluation")
    if evaluation is not None and found.study.runs is None:
        facts += [
            Fact("eval_instructions", "instructions to measure on",
                 evaluation["instructions"][0], "int"),
            Fact("eval_outputs", "reference outputs to them", evaluation["outputs"][0], "int"),
        ]  # fmt: skip
    blocks: list[Block] = [Facts(tuple(facts))]
    limit = found.study.evaluation
    if found.study.runs is None and (limit.max_instructions or limit.max_outputs):
        first = limit.take == "first"
        the, how = ("the first ", "") if first else ("", f", a sample (seed {limit.sample_seed})")
        kept = [
            f"{the}{limit.max_instructions} instructions" if limit.max_instructions else "",
            f"{limit.max_outputs} outputs of each" if limit.max_outputs else "",
        ]
        blocks.append(Text(f"Losses are measured on {' and '.join(filter(None, kept))}{how}."))
    blocks += limited(found)
    blocks += cuts.blocks(found)
    own = found.study.runs is not None
    share = "Share of the runs' examples" if own else "Mean share of a mixture"
    blocks.append(
        Table.of(
            "sources",
            "Candidate sources",
            (
                Column("source", "Source", "text"),
                Column("kept", "Examples kept", "int"),
                Column("drawn", "In some mixture", "int"),
                Column("share", share, "percent"),
            ),
            sources,
        )
    )
    if (languages := found.get("languages")) is not None:
        blocks.append(
            Table.of(
                "languages",
                "Languages, by source",
                (
                    Column("dataset", "Table", "text"),
                    Column("source", "Source", "text"),
                    Column("language", "Language", "text"),
                    Column("examples", "Examples", "int"),
                    Column("share", "Share of the source", "percent"),
                    Column("confidence", "Mean confidence", "two"),
                ),
                languages,
                folded=len(languages) > LONG,
            )
        )
    blocks.append(quarantine(found))
    return Section(KEY, TITLE, tuple(blocks))


def limited(found: Gathered) -> list[Block]:
    """Which sources were not used whole, and what was taken of them."""
    data = found.study.data
    sources = {**data.candidates, **data.unseen, **data.measured}
    said = [
        f"the first {source.limit:,} rows of {name}"
        if source.take == "first"
        else f"a sample of {source.limit:,} rows of {name} (seed {source.sample_seed})"
        for name, source in sources.items()
        if source.limit is not None
    ]
    return [Text(f"Not every source was used whole, but {', '.join(said)}.")] if said else []


def unseen(found: Gathered) -> list[Fact]:
    """How many examples there are to choose from."""
    facts = []
    for name, pool in found.pools.items():
        if pool.examples is not None:
            several = len(found.pools) > 1
            key = f"pool_{name}" if several else "pool"
            label = "unseen examples to choose from" + (f" ({name})" if several else "")
            facts.append(Fact(key, label, pool.examples, "int"))
    return facts


def quarantine(found: Gathered) -> Block:
    """How many rows were put aside, by table and reason."""
    frame = found.get("quarantined")
    if frame is None:
        return Text("No row was put into quarantine.")
    counts = frame.groupby(["dataset", "kind"])["examples"].sum().reset_index()
    columns = (
        Column("dataset", "Table", "text"),
        Column("kind", "Reason", "text"),
        Column("examples", "Rows", "int"),
    )
    return Table.of("quarantined", "Rows put aside, and why", columns, counts)
