"""A few rows of a study to measure with, before or after its data have been read."""

import pandas as pd

from im_assets.candidates.files import SourceError
from im_assets.candidates.format_registry import FormatError
from im_assets.candidates.reading import read_source
from im_assets.candidates.references import references
from im_assets.experiments.evaluation import evaluation_rows
from im_assets.scoring.cached import loader
from im_resources.study import DataSource, Study
from im_resources.warehouse import Warehouse

ROWS = 64  # of each source


def sample_rows(study: Study, warehouse: Warehouse) -> pd.DataFrame:
    """A few rows of the study: of the pool that was read, else the first of each local file.

    Empty when there are none.
    """
    pools = ["candidate_datasets", *(f"{pool}_dataset" for pool in study.pools)]
    for name in pools:
        if warehouse.has_table(name):
            ids = warehouse.read_table(name, ["example_id"])["example_id"]
            some = ids.sample(min(len(ids), 4 * ROWS), random_state=0).tolist()
            return loader(name, warehouse)(some)
    sources = study.data.candidates or study.data.unseen
    parts = [found[0].assign(example_id="") for n, s in sources.items() if (found := _first(n, s))]
    if not parts or not sum(map(len, parts)):
        return pd.DataFrame()
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0, ignore_index=True)


def _first(
    name: str, source: DataSource, verifiable: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The first rows of a local source, and the rejected ones; None of the hub, and of one that
    cannot be read."""
    if source.path is None:
        return None
    try:
        first = source.model_copy(update={"limit": ROWS, "take": "first"})
        return read_source(name, first, verifiable=verifiable)
    except (SourceError, FormatError):  # the run says what is wrong with it
        return None


def sample_references(study: Study, warehouse: Warehouse, count: int) -> pd.DataFrame | None:
    """So many instructions of the evaluation set with their outputs; None where there are none."""
    source = study.data.evaluation
    if source is None or study.trains_nothing:
        return None
    if warehouse.has_table("eval_set"):
        found = warehouse.read_table("eval_set")
    elif (first := _first("evaluation", source, verifiable=True)) is not None:
        found = references(*first)[0]
    else:
        return None
    rows = evaluation_rows(found, study.evaluation)
    ids = rows["eval_id"].drop_duplicates()
    few = ids.sample(min(len(ids), count), random_state=0)
    return rows[rows["eval_id"].isin(few)] if len(few) else None
