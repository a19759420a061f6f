"""Score what has not been scored yet: each (example, indicator, backend) once, ever.

Scores go to the warehouse's ``score_cache`` chunk by chunk, so that a killed run loses at most one
chunk; embeddings go to ``embedding_cache``. Both are keyed by content hash and backend fingerprint.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from im_assets.scoring.batch import Models, ScoringBatch
from im_assets.scoring.cached import cached_scores, embedded, long_scores
from im_assets.scoring.cuts import CACHE as CUTS
from im_assets.scoring.cuts import KEY as CUTS_KEY
from im_assets.scoring.cuts import cut_rows, cuts_fingerprint
from im_assets.scoring.registry import Indicator, IndicatorError, chosen
from im_resources.language_model.memory import enough_memory
from im_resources.language_model.side_by_side import run_side_by_side, stop_point
from im_resources.study import fingerprint
from im_resources.turns import turns_in
from im_resources.usage import count
from im_resources.warehouse import Warehouse
from im_resources.workplace import Workplace

KEY = ["example_id", "indicator", "fingerprint"]
# Of few examples there are so many chunks, where none would have less than so many examples.
CHUNKS, LEAST_CHUNK = 8, 16
# Examples whose texts are held at once: of a larger pool, the next are read when these are scored.
BLOCK = 100_000
OnChunk = Callable[[int, int], None]
Load = Callable[[list[str]], pd.DataFrame]


def score_missing(
    examples: pd.DataFrame,
    indicators: Sequence[Indicator],
    models: Models,
    warehouse: Warehouse,
    on_chunk: OnChunk | None = None,
    load: Load | None = None,
) -> tuple[pd.DataFrame, int]:
    """Complete the caches for ``examples`` and return their scores.

    Args:
        examples: columns example_id, instruction, input, output, and turns where some are
            conversations; each example_id once.
        on_chunk: called with (examples done, examples to do) after each chunk. One that lacks an
            indicator which is given all examples at once counts for that once more.
        load: gives the rows of some example_ids, where ``examples`` has no texts: none is read that
            is not scored.

    Returns:
        Long scores of exactly these examples (example_id, indicator, backend, fingerprint, value;
        texts as categories), and how many examples had to be scored. Set-level indicators only
        have their embeddings cached (see ``embeddings``).
    """
    keys = {i.name: i.fingerprint(models) for i in indicators}
    single = [i for i in indicators if i.backend.scope == "example"]
    per_example = [i for i in single if i.backend.cached]
    read = [i for i in single if not i.backend.cached]
    ids, own = examples["example_id"], {i.name: keys[i.name] for i in per_example}
    values = cached_scores(ids, own, warehouse)
    unembedded = _unembedded(ids, indicators, models, warehouse)
    wanted = _wanted(ids, values, unembedded, per_example)
    computed = sum(map(len, wanted.values()))
    count(found=len(examples) * len(per_example) - computed, computed=computed)
    if wanted:
        whole = [i for i in per_example if i.backend.whole]
        lacking = {i.name: [e for e, names in wanted.items() if i.name in names] for i in whole}
        in_chunks = {
            example_id: names
            for example_id, all_names in wanted.items()
            if (names := tuple(n for n in all_names if n not in lacking))
            or example_id in (unembedded or ())
        }
        told = _Told(on_chunk, len(in_chunks) + sum(map(len, lacking.values())))
        texts = load or (lambda some: examples[ids.isin(some)])
        todo = list(in_chunks)
        for start in range(0, len(todo), BLOCK):
            part = texts(todo[start : start + BLOCK])
            _score(part, in_chunks, unembedded, keys, models, warehouse, told)
        # What others are asked for comes last: it is what may stop half-way.
        for i in whole:
            if lacking[i.name]:
                part = texts(lacking[i.name])
                _score_whole(part, i, keys[i.name], models, warehouse, told)
        values = cached_scores(ids, own, warehouse)
    # Nothing has to be computed for these.
    batch = ScoringBatch(examples.reset_index(drop=True), models)
    values = np.column_stack([values, *(i.score(batch) for i in read)])
    return long_scores(ids, values, [*per_example, *read], keys), len(wanted)


@dataclass
class _Told:
    """Tells how much is done of all that there is to do."""

    on_chunk: OnChunk | None
    total: int
    before: int = 0  # of the parts that are finished

    def part(self, done: int) -> None:
        if self.on_chunk is not None:
            self.on_chunk(self.before + done, self.total)


def unscored(
    example_ids: Iterable[str],
    indicators: Sequence[Indicator],
    models: Models,
    warehouse: Warehouse,
) -> dict[str, tuple[str, ...]]:
    """What ``score_missing`` would compute: the missing indicators of each example that lacks one;
    none of one that lacks its embedding alone."""
    per_example = [i for i in indicators if i.backend.scope == "example" and i.backend.cached]
    keys, ids = {i.name: i.fingerprint(models) for i in per_example}, list(example_ids)
    values = cached_scores(ids, keys, warehouse)
    return _wanted(ids, values, _unembedded(ids, indicators, models, warehouse), per_example)


def _wanted(
    example_ids: Iterable[str],
    values: np.ndarray,
    unembedded: set[str] | None,
    per_example: Sequence[Indicator],
) -> dict[str, tuple[str, ...]]:
    names = [i.name for i in per_example]
    ids = np.array(list(example_ids), dtype=object)
    lacking = np.isnan(values)
    todo = lacking.any(axis=1) | pd.Series(ids).isin(unembedded or ()).to_numpy()
    return {
        example_id: tuple(name for name, lacks in zip(names, row, strict=True) if lacks)
        for example_id, row in zip(ids[todo], lacking[todo].tolist(), strict=True)
    }


def _unembedded(
    example_ids: Collection[str],
    indicators: Sequence[Indicator],
    models: Models,
    warehouse: Warehouse,
) -> set[str] | None:
    """The examples without an embedding; None where no indicator needs any."""
    if all(i.backend.scope != "set" for i in indicators):
        return None
    there = embedded(example_ids, models, warehouse)
    return set(np.array(list(example_ids), dtype=object)[~there])


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


@dataclass(frozen=True)
class Chunk:
    """Some examples, alike in length, and what they lack, all of them the same.

    ``embed``: the example_ids that lack their embedding; None where no indicator needs any.
    """

    examples: pd.DataFrame
    names: tuple[str, ...]
    embed: frozenset[str] | None

    def __len__(self) -> int:
        return len(self.examples)

    def key(self, keys: Mapping[str, str]) -> str:
        """What the chunk asks for, whoever asks."""
        ids = self.examples["example_id"].tolist()
        return fingerprint(ids, [keys[name] for name in self.names], self.embed is not None)


def _score(
    todo: pd.DataFrame,
    wanted: dict[str, tuple[str, ...]],
    unembedded: set[str] | None,
    keys: dict[str, str],
    models: Models,
    warehouse: Warehouse,
    told: _Told,
) -> None:
    # Longest first and alike in length inside a chunk: little padding, and the time left is an
    # upper bound.
    size = todo["instruction"].str.len() + todo["input"].str.len() + todo["output"].str.len()
    size += [sum(len(t.content) for t in turns or ()) for turns in turns_in(todo)]
    todo = todo.iloc[np.argsort(-size.to_numpy(), kind="stable")]
    missing = todo["example_id"].map(wanted)
    # Where there are few examples, some for each worker. Not by how many workers there are: a score
    # depends in its last digits on what it is padded to, and so on its chunk.
    chunk = min(models.study.scoring.chunk, max(LEAST_CHUNK, -(-len(todo) // CHUNKS)))
    parts = [
        (group.iloc[k : k + chunk], names)
        for names, group in ((m, todo[[m == x for x in missing]]) for m in dict.fromkeys(missing))
        for k in range(0, len(group), chunk)
    ]
    items = {}
    for part, names in parts:
        embed = unembedded if unembedded is None else unembedded & set(part["example_id"])
        piece = Chunk(
            part.reset_index(drop=True), names, embed if embed is None else frozenset(embed)
        )
        items[piece.key(keys)] = piece
    here, run = Workplace(models.study, models.gpu, None, warehouse), models.gpu.run
    finished, busy = 0, {}
    for name, done in run(score_chunks, items, here, len, keys=keys):
        if not done:
            busy[name] = items[name]
            continue
        finished += len(items[name])
        told.part(finished)
    # What another run is scoring comes last: meanwhile, the two share the work.
    for name, _ in run(score_chunks, busy, here, len, keys=keys, wait=True) if busy else ():
        finished += len(items[name])
        told.part(finished)
    told.before += len(todo)


def score_chunks(
    items: Mapping[str, Chunk], here: Workplace, keys: Mapping[str, str], wait: bool = False
) -> Iterator[tuple[str, bool]]:
    """A task: score chunks into the caches; yields each as it is there, with whether it is.

    It is not where another has claimed these very chunks, and ``wait`` is not set. What the caches
    hold by now is not scored again.

    Args:
        keys: the fingerprints of the indicators where the work was handed out.

    Raises IndicatorError where these models are others.
    """
    models = Models.of(here.study, here.gpu)
    per_example = [
        i
        for i in chosen(here.study.scoring)
        if i.backend.scope == "example" and i.backend.cached and not i.backend.whole
    ]
    if here.claim is None:
        yield from _chunks(items, per_example, keys, models, here.tables)
        return
    for i in per_example:
        if any(i.name in c.names for c in items.values()) and i.fingerprint(models) != keys[i.name]:
            raise IndicatorError(
                f"{i.name} is another indicator here than where the work was handed out: its "
                "models' files, its options or its version differ"
            )
    with here.claim(f"scores {fingerprint(*items)}", stop_point if wait else None) as mine:
        if not mine:
            yield from dict.fromkeys(items, False).items()
            return
        left = {}
        for name, chunk in items.items():
            lacking = _still(chunk, keys, models, here.tables)
            if lacking is None:
                yield name, True
            else:
                left[name] = lacking
        yield from _chunks(left, per_example, keys, models, here.tables)


def _still(
    chunk: Chunk, keys: Mapping[str, str], models: Models, warehouse: Warehouse
) -> Chunk | None:
    """What a chunk lacks by now; None when that is nothing."""
    ids = chunk.examples["example_id"]
    lacking = np.isnan(cached_scores(ids, {n: keys[n] for n in chunk.names}, warehouse)).any(axis=1)
    embed = chunk.embed
    if embed:
        embed = frozenset(ids[~embedded(ids, models, warehouse)])
    todo = lacking | ids.isin(embed or ()).to_numpy()
    if not todo.any():
        return None
    # Whole, if any of it is to be scored: a value depends a little on what is beside it.
    return replace(chunk, embed=embed)


def _chunks(
    items: Mapping[str, Chunk],
    per_example: Sequence[Indicator],
    keys: Mapping[str, str],
    models: Models,
    warehouse: Warehouse,
) -> Iterator[tuple[str, bool]]:
    lower = {
        "scoring.tokens_per_batch": models.study.scoring.tokens_per_batch,
        "scoring.chunk": max(map(len, items.values()), default=0),
        "the gpu resource's side_by_side": models.gpu.workers,
    }

    def work(name: str) -> bool:
        chunk = items[name]
        lacking = [i for i in per_example if i.name in chunk.names]
        layers = sorted({i.backend.layer for i in lacking if i.backend.layer is not None})
        layer = layers[0] if layers else None
        batch = ScoringBatch(chunk.examples, models, layer)
        # One forward pass gives one layer; a second layer takes a second pass.
        passes: dict[int | None, ScoringBatch] = {
            other: replace(batch, layer=other) for other in layers[1:]
        }
        rows = []
        with enough_memory(f"scoring {len(chunk)} examples", lower):
            for i in lacking:
                stop_point()
                values = i.score(passes.get(i.backend.layer, batch))
                rows.append(_rows(i, batch.examples["example_id"], values, keys[i.name]))
        if chunk.embed is not None:
            new = batch.examples["example_id"].isin(chunk.embed).to_numpy()
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
            ids = batch.examples["example_id"]
            cuts = cut_rows(ids, batch.encoded, cuts_fingerprint(models))
            warehouse.append(CUTS, cuts, key=CUTS_KEY)
        if rows:
            warehouse.append("score_cache", pd.concat(rows, ignore_index=True), key=KEY)
        return True

    yield from run_side_by_side(work, list(items), models.gpu)


def _score_whole(
    todo: pd.DataFrame,
    indicator: Indicator,
    key: str,
    models: Models,
    warehouse: Warehouse,
    told: _Told,
) -> None:
    rows = todo.reset_index(drop=True)
    batch = ScoringBatch(rows, models, None, warehouse, told.part)
    values = _rows(indicator, rows["example_id"], indicator.score(batch), key)
    warehouse.append("score_cache", values, key=KEY)
    told.before += len(todo)
