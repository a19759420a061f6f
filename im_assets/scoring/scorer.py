"""Score what has not been scored yet: each (example, indicator, backend) once, ever.

Scores go to the warehouse's ``score_cache`` chunk by chunk, so that a killed run loses at most one
chunk; embeddings go to ``embedding_cache``. Both are keyed by content hash and backend fingerprint.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from im_assets.scoring.batch import Models, ScoringBatch
from im_assets.scoring.cuts import CACHE as CUTS
from im_assets.scoring.cuts import KEY as CUTS_KEY
from im_assets.scoring.cuts import cut_rows
from im_assets.scoring.registry import Indicator
from im_resources.language_model.memory import enough_memory
from im_resources.language_model.side_by_side import run_side_by_side, stop_point
from im_resources.turns import turns_in
from im_resources.usage import count
from im_resources.warehouse import Warehouse

KEY = ["example_id", "indicator", "fingerprint"]
OnChunk = Callable[[int, int], None]


def score_missing(
    examples: pd.DataFrame,
    indicators: Sequence[Indicator],
    models: Models,
    warehouse: Warehouse,
    on_chunk: OnChunk | None = None,
) -> tuple[pd.DataFrame, int]:
    """Complete the caches for ``examples`` and return their scores.

    Args:
        examples: columns example_id, instruction, input, output, and turns where some are
            conversations; each example_id once.
        on_chunk: called with (examples done, examples to do) after each chunk.

    Returns:
        Long scores of exactly these examples (example_id, indicator, backend, fingerprint, value),
        and how many examples had to be scored. Set-level indicators only have their embeddings
        cached (see ``embeddings_of``).
    """
    keys = {i.name: i.fingerprint(models) for i in indicators}
    single = [i for i in indicators if i.backend.scope == "example"]
    per_example = [i for i in single if i.backend.cached]
    read = [_read(i, examples, models) for i in single if not i.backend.cached]
    cached = _cached_scores(warehouse, keys)
    embedded = _embedded(warehouse, models) if _needs_embeddings(indicators) else None
    wanted = _wanted(examples["example_id"], cached, embedded, per_example)
    computed = sum(map(len, wanted.values()))
    count(found=len(examples) * len(per_example) - computed, computed=computed)
    _score(examples, wanted, embedded, per_example, keys, models, warehouse, on_chunk)
    scores = _cached_scores(warehouse, keys) if wanted else cached
    mine = scores["example_id"].isin(set(examples["example_id"]))
    whole = pd.concat([scores[mine], *read], ignore_index=True)
    return whole.sort_values(KEY, ignore_index=True), len(wanted)


def unscored(
    example_ids: Iterable[str],
    indicators: Sequence[Indicator],
    models: Models,
    warehouse: Warehouse,
) -> dict[str, tuple[str, ...]]:
    """What ``score_missing`` would compute: the missing indicators of each example that lacks one;
    none of one that lacks its embedding alone."""
    keys = {i.name: i.fingerprint(models) for i in indicators}
    per_example = [i for i in indicators if i.backend.scope == "example" and i.backend.cached]
    embedded = _embedded(warehouse, models) if _needs_embeddings(indicators) else None
    return _wanted(example_ids, _cached_scores(warehouse, keys), embedded, per_example)


def _wanted(
    example_ids: Iterable[str],
    cached: pd.DataFrame,
    embedded: set[str] | None,
    per_example: Sequence[Indicator],
) -> dict[str, tuple[str, ...]]:
    done = set(zip(cached["example_id"], cached["indicator"], strict=True))
    wanted: dict[str, tuple[str, ...]] = {}
    for example_id in example_ids:
        todo = tuple(i.name for i in per_example if (example_id, i.name) not in done)
        if todo or (embedded is not None and example_id not in embedded):
            wanted[example_id] = todo
    return wanted


def _read(indicator: Indicator, examples: pd.DataFrame, models: Models) -> pd.DataFrame:
    """Scores that are not cached, since nothing has to be computed for them."""
    values = indicator.score(ScoringBatch(examples.reset_index(drop=True), models))
    return _rows(indicator, examples["example_id"], values, indicator.fingerprint(models))


def _rows(indicator: Indicator, ids: pd.Series, values: np.ndarray, key: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "example_id": ids.to_numpy(),
            "indicator": indicator.name,
            "backend": indicator.backend.name,
            "fingerprint": key,
            "value": values,
        }
    )


def embeddings_of(example_ids: Sequence[str], models: Models, warehouse: Warehouse) -> np.ndarray:
    """Cached embeddings, float32 [examples, dimensions], in the order of ``example_ids``.

    Raises KeyError when one was never scored.
    """
    table = warehouse.query(
        "SELECT example_id, embedding FROM embedding_cache WHERE fingerprint = $fingerprint",
        {"fingerprint": models.fingerprint("embedding")},
    ).set_index("example_id")["embedding"]
    return np.stack(table.loc[list(example_ids)].to_list()).astype(np.float32)


def _score(
    examples: pd.DataFrame,
    wanted: dict[str, tuple[str, ...]],
    embedded: set[str] | None,
    per_example: Sequence[Indicator],
    keys: dict[str, str],
    models: Models,
    warehouse: Warehouse,
    on_chunk: OnChunk | None,
) -> None:
    if not wanted:
        return
    todo = examples[examples["example_id"].isin(wanted)]
    # Longest first and alike in length inside a chunk: little padding, and the time left is an
    # upper bound.
    size = todo["instruction"].str.len() + todo["input"].str.len() + todo["output"].str.len()
    size += [sum(len(t.content) for t in turns or ()) for turns in turns_in(todo)]
    todo = todo.iloc[np.argsort(-size.to_numpy(), kind="stable")]
    missing = todo["example_id"].map(wanted)
    # No worker is without a chunk where there are few examples.
    chunk = min(models.study.scoring.chunk, -(-len(todo) // models.gpu.workers))
    lower = {
        "scoring.tokens_per_batch": models.study.scoring.tokens_per_batch,
        "scoring.chunk": chunk,
        "the gpu resource's side_by_side": models.gpu.workers,
    }
    chunks = [
        (group.iloc[k : k + chunk], names)
        for names, group in ((m, todo[[m == x for x in missing]]) for m in dict.fromkeys(missing))
        for k in range(0, len(group), chunk)
    ]

    def work(number: int) -> None:
        part, names = chunks[number]
        lacking = [i for i in per_example if i.name in names]
        layers = sorted({i.backend.layer for i in lacking if i.backend.layer is not None})
        batch = ScoringBatch(part.reset_index(drop=True), models, *layers[:1])
        # One forward pass gives one layer; a second layer takes a second pass.
        passes: dict[int | None, ScoringBatch] = {
            layer: replace(batch, layer=layer) for layer in layers[1:]
        }
        rows = []
        with enough_memory(f"scoring {len(part)} examples", lower):
            for i in lacking:
                stop_point()
                values = i.score(passes.get(i.backend.layer, batch))
                rows.append(_rows(i, batch.examples["example_id"], values, keys[i.name]))
        if embedded is not None:
            new = ~batch.examples["example_id"].isin(embedded).to_numpy()
            vectors = pd.DataFrame(
                {
                    "example_id": batch.examples["example_id"][new],
                    "fingerprint": models.fingerprint("embedding"),
                    "embedding": list(batch.embeddings[new]) if new.any() else [],
                }
            )
            if len(vectors):
                warehouse.append("embedding_cache", vectors, key=["example_id", "fingerprint"])
        if batch.tokenized:
            cuts = cut_rows(batch.examples["example_id"], batch.encoded, models)
            warehouse.append(CUTS, cuts, key=CUTS_KEY)
        if rows:
            warehouse.append("score_cache", pd.concat(rows, ignore_index=True), key=KEY)

    finished = 0
    for number, _ in run_side_by_side(work, range(len(chunks)), models.gpu):
        finished += len(chunks[number][0])
        if on_chunk is not None:
            on_chunk(finished, len(todo))


def _cached_scores(warehouse: Warehouse, keys: dict[str, str]) -> pd.DataFrame:
    if not warehouse.has_table("score_cache"):
        empty = pd.DataFrame(columns=["example_id", "indicator", "backend", "fingerprint", "value"])
        return empty.astype(dict.fromkeys(empty.columns[:-1], "string") | {"value": "float64"})
    rows = warehouse.query("scores_of.sql", {"fingerprints": sorted(set(keys.values()))})
    return rows[rows["fingerprint"] == rows["indicator"].map(keys)]


def _needs_embeddings(indicators: Sequence[Indicator]) -> bool:
    return any(i.backend.scope == "set" for i in indicators)


def _embedded(warehouse: Warehouse, models: Models) -> set[str]:
    if not warehouse.has_table("embedding_cache"):
        return set()
    rows = warehouse.query(
        "SELECT example_id FROM embedding_cache WHERE fingerprint = $fingerprint",
        {"fingerprint": models.fingerprint("embedding")},
    )
    return set(rows["example_id"])
