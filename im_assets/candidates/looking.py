"""The part of cleaning that each shard does by itself: all that is learned by reading its texts.

It gives numbers, a few dozen bytes a row, from which it is decided which rows stay (`deciding`). It
depends on nothing but the shard, so that it can be done anywhere and in any order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from im_assets.candidates.content import TEXTS, empty_part, example_id, length_of, normalized
from im_assets.candidates.leaks import Counted, Leaks
from im_assets.candidates.near_duplicates import NearDuplicates
from im_assets.candidates.ngrams import Hashes, WordHashes
from im_assets.candidates.shards import Shard, rows_of
from im_resources.turns import TURNS, asked


@dataclass(frozen=True)
class Looked:
    """What was seen of a shard's rows.

    Attributes:
        identities: the example_ids as numbers, uint64 [rows].
        empty, long: whether a row is no example, or too long, [rows].
        talks: whether it is a conversation, [rows].
        sources: the names of the sources, of which ``source`` has the place, int32 [rows].
        banded: places of the rows that have bands, the first of each identity alone.
        bands: their hashes, [bands, banded].
        counted: what they say of leaks, numbered by their place in the shard; None: not looked for.
    """

    identities: Hashes
    empty: np.ndarray
    long: np.ndarray
    talks: np.ndarray
    sources: tuple[str, ...]
    source: np.ndarray
    banded: np.ndarray
    bands: Hashes
    counted: Counted | None


def look(shard: Shard, max_chars: int, similarity: float, leaks: Leaks | None) -> Looked:
    """Look at the rows of a shard.

    Args:
        max_chars: a longer row is too long, and nothing is looked for in it.
        similarity: see `NearDuplicates`.
        leaks: what may not be leaked; None: nothing.
    """
    table = shard.table([*TEXTS, TURNS, "source"])
    texts, hashes = table.select([*TEXTS, TURNS]), _hashes()
    bands = NearDuplicates(similarity).bands
    identities = np.zeros(shard.rows, dtype=np.uint64)
    empty, long, talks = (np.zeros(shard.rows, dtype=bool) for _ in range(3))

    def looked_at() -> Iterator[tuple[int, Hashes, Hashes]]:
        seen: set[str] = set()
        for place, row in enumerate(rows_of(texts)):
            found = normalized(row, *TEXTS)
            identity = example_id(*found.values())
            identities[place], talks[place] = number_of(identity), TURNS in found
            empty[place] = bool(empty_part(found))
            if long_one := length_of(found) > max_chars:
                long[place] = long_one
                continue
            prompt, output = hashes.of(asked(found)), hashes.of(found["output"])
            if identity not in seen:  # a copy is told by its identity
                seen.add(identity)
                bands.add(place, np.concatenate([prompt, output]))
            yield place, prompt, output

    counted = None
    if leaks is not None:
        counted = leaks.count(looked_at())
    else:
        for _ in looked_at():
            pass
    encoded = table.column("source").combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return Looked(
        identities,
        empty,
        long,
        talks,
        tuple(encoded.dictionary.to_pylist()),
        encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        *bands.hashes(),
        counted,
    )


def look_at(
    shards: Mapping[str, Shard], here: object, **common: Any
) -> Iterator[tuple[str, Looked]]:
    """`look` at each of these shards: a task (see ``im_resources.workplace``)."""
    for key, shard in shards.items():
        yield key, look(shard, **common)


def number_of(identity: str) -> int:
    """An example_id as the number that its 16 hex digits are."""
    return int(identity, 16)


@lru_cache(maxsize=1)
def _hashes() -> WordHashes:
    """One of a process, since most words come again in the next shard."""
    return WordHashes()
