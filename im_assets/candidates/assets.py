"""The data of a study as assets: the evaluation set, the candidates, and the unseen pool."""

from collections import Counter
from collections.abc import Mapping, Sequence

import dagster as dg
import pandas as pd

from im_assets.candidates import tracing
from im_assets.candidates.cleaning import as_they_are
from im_assets.candidates.forgetting import erase
from im_assets.candidates.gathering import not_text_of, taken_of
from im_assets.candidates.making import QUARANTINE, Making, metadata, require_usable
from im_assets.candidates.reading import read
from im_assets.candidates.references import references
from im_assets.candidates.tracing import version_of_rows
from im_assets.candidates.versions import SINCE
from im_assets.candidates.withdrawn import withdrawn_ids
from im_assets.common.presentation import column_schema, presentation, preview, table
from im_assets.common.versions import with_version
from im_assets.landing.forgetting import forget_landed
from im_assets.landing.ledger import TABLE as LANDED
from im_assets.scoring.registry import columns_read
from im_resources.adapter_store import AdapterStore
from im_resources.deployment.making import exports_of
from im_resources.gpu import GpuResource
from im_resources.spooled import Spooled
from im_resources.study import Study
from im_resources.turns import TURNS, turns_in
from im_resources.warehouse import Warehouse

_TEXTS = {
    **{name: tracing.COLUMNS[name] for name in ("source", "line")},
    "instruction": ("VARCHAR", "What is asked; of a conversation, its last user turn"),
    "input": ("VARCHAR", "Context of the instruction; '' where none"),
    "output": ("VARCHAR", "The response; of a conversation, its last reply"),
    TURNS: (
        "VARCHAR",
        "Of a conversation, all turns before the response, as JSON; NULL of an instruction alone, "
        "and no column where all are",
    ),
    "category": ("VARCHAR", "The source's own category; '' where none"),
    **{name: tracing.COLUMNS[name] for name in ("file", tracing.OWN_ID)},
}
_EXAMPLES = {
    "example_id": ("VARCHAR", "Hash of the normalized content"),
    **_TEXTS,
    "language": ("VARCHAR", "ISO 639-1 code; zxx: no language; und: undetermined"),
    "language_confidence": ("DOUBLE", "Probability of the likeliest language, 0 to 1"),
}
_CANDIDATES = _EXAMPLES | {SINCE: ("BIGINT", "The first version of the pool that holds it")}
_REFERENCES = {
    "eval_id": ("VARCHAR", "Hash of the normalized prompt"),
    "output_index": ("BIGINT", "Number of the reference output, from 0"),
    **_TEXTS,
    "answer": ("VARCHAR", "What a right response comes to; '' where the row carries none"),
    "pattern": ("VARCHAR", "Regular expression that a right response matches; '' where none"),
}


KINDS = {"python", "duckdb"}


@dg.asset(
    description="D_eval: instructions with their reference outputs, one row per output. Every "
    "finetuned mixture is measured on it.",
    **presentation("candidates", KINDS, _REFERENCES, reads=("data.evaluation",)),
)
def eval_set(
    study: dg.ResourceParam[Study], warehouse: dg.ResourceParam[Warehouse]
) -> dg.Output[pd.DataFrame]:
    """Reads the evaluation source; raises SourceError when none of its rows can be used."""
    return _references("eval_set", "evaluation", study, warehouse)


@dg.asset(
    description="Instructions of another kind, with their reference outputs: what is selected is "
    "measured on them too, and nothing is fitted on them.",
    **presentation("candidates", KINDS, _REFERENCES, reads=("data.second_evaluation",)),
)
def second_eval_set(
    study: dg.ResourceParam[Study], warehouse: dg.ResourceParam[Warehouse]
) -> dg.Output[pd.DataFrame]:
    """Reads the second source; raises SourceError when none of its rows can be used."""
    return _references("second_eval_set", "second_evaluation", study, warehouse)


def _references(
    asset: str, name: str, study: Study, warehouse: Warehouse
) -> dg.Output[pd.DataFrame]:
    source = study.data.measured[name]
    found = read(name, source, verifiable=True)
    kept, dropped = references(found.rows, found.rejected)
    dropped = dropped.assign(dataset=pd.Series(asset, dropped.index, dtype="string"))
    reasons = Counter(zip(dropped["source"], dropped["kind"], strict=True))
    # First, so that the reasons can be looked up when the next line raises.
    warehouse.replace_rows(QUARANTINE, dropped, where={"dataset": asset})
    require_usable(asset, [name], Counter(kept["source"]), reasons)
    taken = {}
    if source.limit is not None:
        taken = {name: taken_of(source, len(found.rows), found.usable)}
    talks = pd.Series([turns is not None for turns in turns_in(kept)], kept.index, dtype=bool)
    told = metadata(
        [name],
        Counter(kept["source"]),
        Counter(kept["source"][talks]),
        not_text_of(found.rows),
        reasons,
        taken,
    )
    shown = {"preview": preview(kept), "quarantine_preview": preview(dropped)}
    return table(kept, told | shown, version_of_rows(kept, ordered=True))


def candidates_asset(
    made_from: Sequence[str] = (), measured: Sequence[str] = ("eval_set",)
) -> dg.AssetsDefinition:
    """The asset ``candidate_datasets``, made from these too: from what landed, where it can.

    Args:
        measured: the evaluation sets, which nothing in it may leak.
    """
    return dg.asset(
        name="candidate_datasets",
        deps=made_from,
        ins={name: dg.AssetIn(name) for name in measured},
        description="The candidate pool: every usable example of every source, without duplicates "
        "and without anything that would leak the evaluation set. The rest is in "
        "quarantined_examples. A changed content is the next version of the pool "
        "(candidate_history).",
        **presentation(
            "candidates",
            KINDS,
            _CANDIDATES,
            code_version="2",
            reads=("data.candidates", "data.withdrawn", "cleaning"),
        ),
    )(_candidate_datasets)


def _candidate_datasets(
    study: dg.ResourceParam[Study],
    warehouse: dg.ResourceParam[Warehouse],
    gpu: GpuResource,
    **tables: pd.DataFrame,
) -> dg.Output[Spooled]:
    """Reads and cleans the candidates; raises SourceError when a source has no usable row."""
    # What a run was trained on it was trained on, whatever it resembles.
    settings = study.cleaning if study.runs is None else as_they_are(study.cleaning)
    making = Making("candidate_datasets", study, warehouse, gpu, settings, versioned=True)
    return _made(making, {name: name for name in study.data.candidates}, tables)


def pool_asset(
    pool: str, made_from: Sequence[str] = (), measured: Sequence[str] = ("eval_set",)
) -> dg.AssetsDefinition:
    """The asset ``<pool>_dataset``: one unseen pool of the profile, made from these too.

    Args:
        measured: the evaluation sets, which nothing of the pool may leak.
    """

    @dg.asset(
        name=f"{pool}_dataset",
        deps=made_from,
        ins={name: dg.AssetIn(name) for name in measured},
        description="An unseen pool that the rule ranks (databricks-dolly-15k in the paper), "
        "cleaned like the candidates.",
        **presentation(
            "candidates",
            KINDS,
            _EXAMPLES,
            code_version="2",
            reads=(f"data.unseen.{pool}", "data.withdrawn", "cleaning"),
        ),
    )
    def pool_dataset(
        study: dg.ResourceParam[Study],
        warehouse: dg.ResourceParam[Warehouse],
        gpu: GpuResource,
        **tables: pd.DataFrame,
    ) -> dg.Output[Spooled]:
        """Reads and cleans the unseen pool; raises SourceError when it has no usable row."""
        # The single pool of an unnamed profile has always been the source "unseen".
        name = pool if pool != "dolly" else "unseen"
        making = Making(f"{pool}_dataset", study, warehouse, gpu, study.cleaning)
        return _made(making, {name: pool}, tables)

    return pool_dataset


def _made(
    making: Making, targets: Mapping[str, str], tables: Mapping[str, pd.DataFrame]
) -> dg.Output[Spooled]:
    """The pool of these sources, which leaks none of these tables."""
    kept, told, version = making.made(targets, tables)
    return dg.Output(kept, metadata=told, data_version=dg.DataVersion(version))


def _drawn_from(study: Study) -> tuple[str, ...]:
    """The candidates, and what says which of them something was finetuned on."""
    if study.fits_nothing:
        return ()
    if study.runs is not None:  # one that holds a withdrawn example is an error, and erases no less
        return ("candidate_datasets",)
    return "candidate_datasets", "mixture_seeds"


def forgotten_asset(study: Study) -> dg.AssetsDefinition:
    """The asset ``forgotten_examples``, where ``data.withdrawn.forget`` asks for it."""

    @dg.asset(
        deps=[
            *_drawn_from(study),
            *(f"{pool}_dataset" for pool in study.pools),
        ],
        **presentation("candidates", KINDS, {"table": ("text", "Table of the warehouse"),
                                             "rows": ("bigint", "Rows that were erased")},
                       reads=("data.withdrawn",)),
    )  # fmt: skip
    def forgotten_examples(
        study: dg.ResourceParam[Study],
        warehouse: dg.ResourceParam[Warehouse],
        adapters: dg.ResourceParam[AdapterStore],
    ) -> dg.Output[pd.DataFrame]:
        """What was erased of the withdrawn examples: rows by table, finetunes that saw one, and
        exports, which a run makes again. The profile's own files are not touched."""
        ids = withdrawn_ids(study)
        # As they are now: this process may have begun before the selection was made.
        exports = [study.folder / name for name in ("report", "snapshot")]
        exports += study.folder.glob("*selection.jsonl")
        landed = forget_landed(ids, study, warehouse)
        elsewhere = exports_of(study)
        erased = erase(
            ids, warehouse, adapters, exports, lambda: elsewhere.forget("report", "*selection")
        )
        rows = pd.DataFrame(sorted(erased.rows.items()), columns=["table", "rows"])
        return table(
            rows.astype({"table": "string", "rows": "int64"}),
            {
                "finetunes": len(erased.trials),
                "rows": dg.MetadataValue.json(erased.rows),
                "files": dg.MetadataValue.json([path.name for path in erased.files]),
                "landed files": dg.MetadataValue.json(landed),
            },
        )

    return forgotten_examples


def with_columns(asset: dg.AssetsDefinition, extra: Mapping[str, str]) -> dg.AssetsDefinition:
    """The asset of a table that keeps further columns of its sources: another version of it."""
    if not extra:
        return asset
    types = {"number": "DOUBLE", "text": "VARCHAR"}
    columns = {
        name: (types[kind], "The source's own column, which an indicator reads")
        for name, kind in extra.items()
    }
    own = _CANDIDATES if asset.key == dg.AssetKey("candidate_datasets") else _EXAMPLES
    schema = column_schema(own | columns)
    return with_version(asset, extra).map_asset_specs(
        lambda spec: spec.merge_attributes(metadata=schema)
    )


def definitions(study: Study) -> dg.Definitions:
    """The assets and checks of this room."""
    from im_assets.candidates.checks import (
        candidates_do_not_leak,
        eval_set_usable,
        no_empty_source,
        pool_does_not_leak,
    )

    forgets = study.data.withdrawn is not None and study.data.withdrawn.forget
    landed = [] if study.landing is None else [LANDED]
    sets = {"evaluation": eval_set, "second_evaluation": second_eval_set}
    evaluated = [sets[name] for name in study.data.measured]
    names = [asset.key.to_user_string() for asset in evaluated]
    measured, fits = study.data.evaluation is not None, not study.fits_nothing
    # Nothing of own runs is measured here, so that nothing in their data can leak.
    compared = [] if study.runs is not None else names
    pools = (
        *([candidates_asset(landed, compared)] if fits else ()),
        *(pool_asset(pool, landed, names) for pool in study.pools),
    )
    return dg.Definitions(
        assets=[
            *([forgotten_asset(study)] if forgets else ()),
            *evaluated,
            *(with_columns(asset, columns_read(study.scoring)) for asset in pools),
        ],
        asset_checks=[
            *([eval_set_usable] if measured else ()),
            *((no_empty_source,) if fits else ()),
            *((candidates_do_not_leak,) if fits and study.runs is None else ()),
            *(map(pool_does_not_leak, study.pools) if measured else ()),
        ],
    )
