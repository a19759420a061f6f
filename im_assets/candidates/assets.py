"""The data of a study as assets: the evaluation set, the candidates, and the unseen pool."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from im_assets.candidates import tracing
from im_assets.candidates.cleaning import as_they_are, clean
from im_assets.candidates.forgetting import erase
from im_assets.candidates.format_registry import NOT_TEXT
from im_assets.candidates.languages import LANGUAGE, by_source, with_language
from im_assets.candidates.reading import Reading, SourceError, read
from im_assets.candidates.references import references
from im_assets.candidates.tracing import version_of_rows
from im_assets.candidates.versions import (
    HISTORY,
    KEY,
    SINCE,
    changes,
    current_version,
    held_in,
    next_history,
)
from im_assets.candidates.withdrawn import withdrawn_ids
from im_assets.common.presentation import column_schema, presentation, preview, table
from im_assets.common.versions import with_version
from im_assets.landing.forgetting import forget_landed
from im_assets.landing.ledger import TABLE as LANDED
from im_assets.landing.ledger import admitted, source_of, target_source
from im_assets.scoring.registry import columns_read
from im_resources.adapter_store import AdapterStore
from im_resources.deployment.making import exports_of
from im_resources.study import DataSource, Study
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
    own = study.data.measured[name]
    found = read(name, own, verifiable=True)
    cleaned = references(found.rows, found.rejected)
    version, taken = version_of_rows(cleaned[0], ordered=True), _taken({name: (own, found)})
    return _store(asset, {name: own}, cleaned, warehouse, found.rows, version, taken)


def _not_to_leak(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame | None:
    """All that nothing in a pool may leak; None where nothing is measured."""
    found = [tables[name] for name in ("eval_set", "second_eval_set") if name in tables]
    return pd.concat(found, ignore_index=True) if len(found) > 1 else next(iter(found), None)


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
    **tables: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Reads and cleans the candidates; raises SourceError when a source has no usable row."""
    sources = study.data.candidates
    rows, rejected, taken = _read({name: name for name in sources}, study, warehouse)
    evaluated, withdrawn_rows = _not_to_leak(tables), withdrawn_ids(study)
    # What a run was trained on it was trained on, whatever it resembles.
    settings = study.cleaning if study.runs is None else as_they_are(study.cleaning)
    kept, quarantined = clean(rows, rejected, settings, evaluated, withdrawn_rows)
    kept = with_language(kept)
    name = "candidate_datasets"
    _quarantine(name, sources, kept, quarantined, warehouse)
    history = next_history(_history(name, warehouse), kept)
    warehouse.replace_table(HISTORY, history)
    version = current_version(history)
    since = held_in(history, version)
    kept = kept.merge(since.astype({c: kept[c].dtype for c in KEY}), on=KEY, validate="one_to_one")
    added, withdrawn = changes(history, version - 1)
    return table(
        kept,
        _metadata(sources, kept, quarantined, rows)
        | taken
        | {"pool version": version, "added": added, "withdrawn": withdrawn},
        version_of_rows(kept),
    )


def _history(name: str, warehouse: Warehouse) -> pd.DataFrame | None:
    """The pool's history; of a pool from before it had one, its content is the first version."""
    if warehouse.has_table(HISTORY):
        return warehouse.read_table(HISTORY)
    if not warehouse.has_table(name):
        return None
    return next_history(None, warehouse.read_table(name, KEY))


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
        **tables: pd.DataFrame,
    ) -> dg.Output[pd.DataFrame]:
        """Reads and cleans the unseen pool; raises SourceError when it has no usable row."""
        # The single pool of an unnamed profile has always been the source "unseen".
        name = pool if pool != "dolly" else "unseen"
        sources = {name: study.data.unseen[pool]}
        rows, rejected, taken = _read({name: pool}, study, warehouse)
        kept, quarantined = clean(
            rows, rejected, study.cleaning, _not_to_leak(tables), withdrawn_ids(study)
        )
        cleaned = with_language(kept), quarantined
        version = version_of_rows(cleaned[0])
        return _store(f"{pool}_dataset", sources, cleaned, warehouse, rows, version, taken)

    return pool_dataset


def _read(
    targets: Mapping[str, str], study: Study, warehouse: Warehouse
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """(rows, rejected, metadata) of all sources, in the order of the profile, then of what landed
    for them.

    What landed comes last: of duplicates, it is the row that is there already that stays.

    Args:
        targets: the source or pool of the profile, by its name in the column ``source``.
    """
    extra = columns_read(study.scoring)
    sources = {name: target_source(study, target) for name, target in targets.items()}
    parts = [read(name, source, extra) for name, source in sources.items()]
    told = _taken({n: (sources[n], part) for n, part in zip(sources, parts, strict=True)})
    for name, target in targets.items():
        for landed in admitted(warehouse, target):
            found = read(name, source_of(landed, study), extra)
            rows, rejected = (f.assign(file=landed.told) for f in (found.rows, found.rejected))
            parts.append(Reading(rows, rejected, found.usable))
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    return rows, pd.concat([part.rejected for part in parts], ignore_index=True), told


def _taken(read_: Mapping[str, tuple[DataSource, Reading]]) -> dict[str, Any]:
    """Metadata: of each source with a ``limit``, how many rows of how many were taken, and how."""
    told: dict[str, Any] = {}
    for name, (source, found) in read_.items():
        if source.limit is not None:
            how = {"take": source.take} | (
                {"seed": source.sample_seed} if source.take == "sample" else {}
            )
            told[name] = {"rows": len(found.rows), "of": found.usable, "limit": source.limit, **how}
    return {"taken_of_sources": dg.MetadataValue.json(told)} if told else {}


def _store(
    asset: str,
    sources: Mapping[str, DataSource],
    cleaned: tuple[pd.DataFrame, pd.DataFrame],
    warehouse: Warehouse,
    rows: pd.DataFrame,
    version: str,
    taken: Mapping[str, Any],
) -> dg.Output[pd.DataFrame]:
    """Writes the quarantine and wraps the kept rows with what the catalog shows of them."""
    kept, quarantined = cleaned
    _quarantine(asset, sources, kept, quarantined, warehouse)
    return table(kept, _metadata(sources, kept, quarantined, rows) | dict(taken), version)


def _quarantine(
    asset: str,
    sources: Mapping[str, DataSource],
    kept: pd.DataFrame,
    quarantined: pd.DataFrame,
    warehouse: Warehouse,
) -> None:
    """Writes the quarantine. Raises SourceError when it holds every row of a source."""
    quarantined = quarantined.assign(dataset=pd.Series(asset, quarantined.index, dtype="string"))
    # First, so that the reasons can be looked up when the next lines raise.
    warehouse.replace_rows("quarantined_examples", quarantined, where={"dataset": asset})
    usable = set(kept["source"])
    for source in sources:
        if source not in usable:
            kinds = _by_kind(quarantined[quarantined["source"] == source])
            raise SourceError(
                f"source {source!r}: none of its {sum(kinds.values())} rows can be used {kinds}; "
                f"see table quarantined_examples where dataset = '{asset}'"
            )


def _metadata(
    sources: Mapping[str, DataSource],
    kept: pd.DataFrame,
    quarantined: pd.DataFrame,
    rows: pd.DataFrame,
) -> dict[str, Any]:
    """What the catalog shows of a pool, made of the ``rows`` that were read."""
    counts = kept["source"].value_counts()
    talks = pd.Series([turns is not None for turns in turns_in(kept)], kept.index, dtype=bool)
    conversations = kept["source"][talks].value_counts()
    languages = {} if LANGUAGE not in kept else by_source(kept)  # the evaluation set has none
    return {
        "dagster/row_count": len(kept),
        "rows_by_source": dg.MetadataValue.json({s: int(counts[s]) for s in sources}),
        **({"languages_by_source": dg.MetadataValue.json(languages)} if languages else {}),
        "conversations_by_source": dg.MetadataValue.json(
            {str(source): int(count) for source, count in conversations.items()}
        ),
        "not_text_by_source": dg.MetadataValue.json(not_text_by_source(rows)),
        "quarantined": len(quarantined),
        "quarantined_by_reason": dg.MetadataValue.json(_by_kind(quarantined)),
        "preview": preview(kept),
        "quarantine_preview": preview(quarantined),
    }


def not_text_by_source(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """What readable rows hold that is left out, since it is no text or nothing learns from it: how
    much of each kind, by source."""
    found: dict[str, Counter[str]] = {}
    if NOT_TEXT in rows:
        for source, kinds in zip(rows["source"], rows[NOT_TEXT], strict=True):
            if isinstance(kinds, dict):
                found.setdefault(str(source), Counter()).update(kinds)
    return {source: dict(kinds.most_common()) for source, kinds in found.items()}


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


def _by_kind(quarantined: pd.DataFrame) -> dict[str, int]:
    counts = quarantined["kind"].value_counts()
    return {str(kind): int(count) for kind, count in counts.items()}


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
