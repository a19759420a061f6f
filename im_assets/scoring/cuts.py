"""What `models.max_length` cuts of each example, counted once: when the base model's pass makes its
tokens, or here where that is not needed any more (its scores are in the cache) or comes later."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from im_assets.scoring.batch import Models
from im_assets.scoring.cached import placed
from im_resources.language_model.template_registry import learned_key
from im_resources.study import fingerprint
from im_resources.warehouse import Warehouse

if TYPE_CHECKING:
    from im_resources.language_model.prompts import Encoded

CACHE, KEY = "cut_cache", ["example_id", "fingerprint"]
CHUNK = 5000  # examples between two writes: seconds of work
# Changes when the same tokens would be counted otherwise.
VERSION = 2


def cuts_fingerprint(models: Models, *more: str) -> str:
    """Everything on which it depends what is cut of an example, and ``more``."""
    learned = learned_key(models.study.models)
    return fingerprint(VERSION, models.fingerprint("tokenizer"), *learned, *more)


def cut_rows(ids: pd.Series, encoded: Sequence["Encoded"], key: str) -> pd.DataFrame:
    """Rows of the cache: example_id, fingerprint, and the counts of each."""
    from im_resources.language_model.cuts import counted

    rows = counted(encoded)
    rows.insert(0, "example_id", ids.to_numpy())
    rows.insert(1, "fingerprint", key)
    return rows


def cuts_of(
    examples: pd.DataFrame,
    models: Models,
    warehouse: Warehouse,
    load: Callable[[list[str]], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """What is cut of each example.

    Args:
        examples: columns example_id, instruction, input, output, and turns where some are
            conversations; each example_id once.
        load: gives the rows of some example_ids, where ``examples`` has no texts.

    Returns:
        As ``counted_once``. No base model is loaded, and a tokenizer only where something is new.
    """
    from im_resources.language_model.prompts import encode_examples

    def encode(missing: pd.Series) -> Sequence["Encoded"]:
        texts = load(list(missing)) if load else examples.iloc[missing.index]
        return encode_examples(models.tokenizer, models.study.models, texts)

    return counted_once(examples["example_id"], cuts_fingerprint(models), encode, warehouse)


def counted_once(
    ids: pd.Series,
    key: str,
    encode: Callable[[pd.Series], Sequence["Encoded"]],
    warehouse: Warehouse,
) -> pd.DataFrame:
    """What is cut of each of these examples or instructions, which is kept.

    Args:
        ids: each once.
        key: what the counts depend on beside the id.
        encode: gives the tokens of those that were not counted before; their index is their place.

    Returns:
        example_id and the counts (``COUNTS`` and ``LENGTH`` in im_resources.language_model.cuts),
        in the order given.
    """
    ids, parts = ids.reset_index(drop=True), []
    there = np.zeros(len(ids), bool)
    if warehouse.has_table(CACHE):
        known = warehouse.query("cuts_of.sql", {"fingerprint": key}, {"wanted": placed(ids)})
        there[known["place"].to_numpy()] = True
        parts.append(known.set_index("place"))
    missing = ids[~there]
    for start in range(0, len(missing), CHUNK):
        part = missing.iloc[start : start + CHUNK]
        rows = cut_rows(part, encode(part), key)
        warehouse.append(CACHE, rows, key=KEY)
        rows.index = part.index
        parts.append(rows.drop(columns=KEY))
    found = pd.concat(parts).sort_index()
    found.insert(0, "example_id", ids)
    return found
