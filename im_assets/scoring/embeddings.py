"""Cached embeddings of examples: in memory, or of a large pool in a file that is mapped into it."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from im_assets.scoring.batch import Models
from im_assets.scoring.cached import placed
from im_resources.warehouse import Warehouse

# From this size on (float32: 256 MB) vectors are not held in memory: a million examples have 3 GB.
IN_MEMORY = 1 << 26
BLOCK = 1 << 23  # numbers of a block, 32 MB


def embeddings_of(example_ids: Sequence[str], models: Models, warehouse: Warehouse) -> np.ndarray:
    """Cached embeddings, float32 [examples, dimensions], in the order of ``example_ids``.

    Many are a memory map of a temporary file, which goes with the array: what is done with all of
    them goes over ``blocks``.

    Raises KeyError when one was never scored.
    """
    if not len(example_ids):
        return np.empty((0, 0), dtype=np.float32)
    key = {"fingerprint": models.fingerprint("embedding")}
    tables = {"wanted": placed(example_ids)}
    vectors, found = np.empty((0, 0), dtype=np.float32), np.zeros(len(example_ids), dtype=bool)
    if warehouse.has_table("embedding_cache"):
        with warehouse.arrow("embeddings_of.sql", key, tables, 1 << 13) as batches:
            for batch in batches:
                places = batch["place"].to_numpy()
                block = batch["embedding"].flatten().to_numpy().reshape(len(places), -1)
                if not found.any():
                    vectors = _room(len(example_ids), block.shape[1])
                _mapped(vectors)[places] = block
                found[places] = True
    if not found.all():
        first = example_ids[int(np.argmin(found))]
        raise KeyError(
            f"{int((~found).sum())} of {len(found)} examples have no embedding by the profile's "
            f"model, such as {first}; materialize their scores again"
        )
    return vectors


def blocks(vectors: np.ndarray, numbers: int = BLOCK) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows in order, a few at a time, each block in memory of its own.

    Of a memory map, what was read stays resident as long as the map does: each block has another.

    Args:
        numbers: of a block, at most.
    """
    count, dimensions = vectors.shape
    rows = max(1, numbers // max(1, dimensions))
    for start in range(0, count, rows):
        part = slice(start, min(start + rows, count))
        yield part, np.array(_mapped(vectors)[part])


def rows_of(vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Some rows, in memory of their own (see ``blocks``)."""
    return np.array(_mapped(vectors)[places])


def _mapped(vectors: np.ndarray) -> np.ndarray:
    """A map of its own, of the whole of a mapped array; anything else as it is."""
    if not isinstance(vectors, np.memmap) or vectors.filename is None:
        return vectors
    whole = Path(vectors.filename).stat().st_size == vectors.nbytes and vectors.flags.c_contiguous
    return (
        np.memmap(vectors.filename, vectors.dtype, "r+", shape=vectors.shape) if whole else vectors
    )


def _room(count: int, dimensions: int) -> np.ndarray:
    if count * dimensions < IN_MEMORY:
        return np.empty((count, dimensions), dtype=np.float32)
    folder = Path(tempfile.mkdtemp(prefix="embeddings-"))
    vectors = np.memmap(folder / "vectors", np.float32, "w+", shape=(count, dimensions))
    weakref.finalize(vectors, shutil.rmtree, folder, ignore_errors=True)
    return vectors
