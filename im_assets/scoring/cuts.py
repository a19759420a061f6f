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
VERSION = 1


def cuts_fingerprint(models: Models) -> str:
    """Everything on which it depends what is cut of an example."""
    return fingerprint(VERSION, models.fingerprint("tokenizer"), *learned_key(models.study.models))


def cut_rows(ids: pd.Series, encoded: Sequence["Encoded"], models: Models) -> pd.DataFrame:
    """Rows of the cache: example_id, fingerprint, and the counts of each."""
    from im_resources.language_model.cuts import counted

    rows = counted(encoded)
    rows.insert(0, "example_id", ids.to_numpy())
    rows.insert(1, "fingerprint", cuts_fingerprint(models))
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
        example_id and the counts (``im_resources.language_model.cuts.COUNTS``) of exactly these
        examples, in their order. Those that were not counted before are tokenized, without the base
        model.
    """
    from im_resources.language_model.prompts import encode_examples

    key = {"fingerprint": cuts_fingerprint(models)}
    ids, parts, there = (
        examples["example_id"].reset_index(drop=True),
        [],
        np.zeros(len(examples), bool),
    )
    if warehouse.has_table(CACHE):
        known = warehouse.query("cuts_of.sql", key, {"wanted": placed(ids)})
        there[known["place"].to_numpy()] = True
        parts.append(known.set_index("place"))
    missing = ids[~there]
    texts = load(list(missing)) if load and len(missing) else examples[~there]
    for start in range(0, len(missing), CHUNK):
        part = texts.iloc[start : start + CHUNK]
        encoded = encode_examples(models.tokenizer, models.study.models, part)
        rows = cut_rows(part["example_id"], encoded, models)
        warehouse.append(CACHE, rows, key=KEY)
        rows.index = missing.index[start : start + CHUNK]
        parts.append(rows.drop(columns=KEY))
    found = pd.concat(parts).sort_index()
    found.insert(0, "example_id", ids)
    return found
