"""What the caches hold of some examples, as arrays: of a million, a Python object a score would be
gigabytes."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from im_assets.scoring.batch import Models
from im_assets.scoring.registry import Indicator
from im_resources.tables import MissingTableError, WarehouseError
from im_resources.warehouse import Warehouse


def placed(example_ids: Collection[str]) -> pa.Table:
    """The examples as a table for SQL to join with: example_id, and its place from 0."""
    ids = pa.array(example_ids, pa.string())
    return pa.table({"example_id": ids, "place": np.arange(len(ids))})


def loader(asset: str, warehouse: Warehouse) -> Callable[[list[str]], pd.DataFrame]:
    """Gives the rows of some example_ids of an asset's table, in their order."""

    def load(ids: list[str]) -> pd.DataFrame:
        rows = warehouse.read_table(asset, where={"example_id": ids})
        return rows.set_index("example_id", drop=False).loc[ids].reset_index(drop=True)

    return load


def rows_among(asset: str, ids: Collection[str], warehouse: Warehouse) -> pd.DataFrame:
    """The rows of an asset's table with one of these example_ids, in the table's order.

    Raises WarehouseError when there is no such table.
    """
    try:
        return warehouse.read_table(asset, where={"example_id": list(ids)})
    except MissingTableError:
        raise WarehouseError(
            f"asset {asset!r} is not in the warehouse {warehouse.name}: materialize it first"
        ) from None


def cached_scores(
    example_ids: Collection[str],
    keys: Mapping[str, str],
    warehouse: Warehouse,
    table: str = "score_cache",
) -> np.ndarray:
    """Cached scores, float64 [examples, indicators], nan where there is none.

    Args:
        keys: the fingerprint of each indicator by its name, in order.
        table: of the cache, or of the scores of a pool.
    """
    values = np.full((len(example_ids), len(keys)), np.nan)
    if not keys or not len(example_ids) or not warehouse.has_table(table):
        return values
    names = {
        "indicator": list(keys),
        "fingerprint": list(keys.values()),
        "number": range(len(keys)),
    }
    tables = {"wanted": placed(example_ids), "indicators": pa.table(names)}
    with warehouse.arrow("cached_scores.sql", {"scores": table}, tables) as batches:
        for batch in batches:
            place, number, value = (batch[c].to_numpy() for c in ("place", "number", "value"))
            values[place, number] = value
    return values


def embedded(example_ids: Collection[str], models: Models, warehouse: Warehouse) -> np.ndarray:
    """Whether each example's embedding is cached, [examples]."""
    found = np.zeros(len(example_ids), dtype=bool)
    if len(found) and warehouse.has_table("embedding_cache"):
        key, tables = (
            {"fingerprint": models.fingerprint("embedding")},
            {"wanted": placed(example_ids)},
        )
        with warehouse.arrow("embedded.sql", key, tables) as batches:
            for batch in batches:
                found[batch["place"].to_numpy()] = True
    return found


def long_scores(
    example_ids: Collection[str],
    values: np.ndarray,
    indicators: Sequence[Indicator],
    keys: Mapping[str, str],
) -> pd.DataFrame:
    """Scores as rows, ordered by example_id and indicator: example_id, indicator, backend,
    fingerprint (categories: a text is held once, and its rows are numbers) and value.

    Args:
        values: [examples, indicators], without nan.
    """
    ids = pa.array(example_ids, pa.string())
    order = pc.sort_indices(ids)
    columns = sorted(range(len(indicators)), key=lambda number: indicators[number].name)
    chosen = [indicators[number] for number in columns]

    def of_indicators(texts: list[str]) -> pa.DictionaryArray:
        known = sorted(set(texts))
        codes = np.array([known.index(text) for text in texts], dtype=np.int8)
        return pa.DictionaryArray.from_arrays(np.tile(codes, len(ids)), known)

    of_examples = np.repeat(np.arange(len(ids), dtype=np.int32), len(chosen))
    rows = {
        "example_id": pa.DictionaryArray.from_arrays(of_examples, ids.take(order)),
        "indicator": of_indicators([i.name for i in chosen]),
        "backend": of_indicators([i.backend.name for i in chosen]),
        "fingerprint": of_indicators([keys[i.name] for i in chosen]),
        "value": values[order.to_numpy()][:, columns].ravel(),
    }
    frame: pd.DataFrame = pa.table(rows).to_pandas()
    return frame
