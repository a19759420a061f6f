"""What the caches hold, as arrays, is what frames of them were."""

from pathlib import Path

import numpy as np
import pandas as pd

from im_assets.common.versions import content_version
from im_assets.scoring.cached import cached_scores, long_scores
from im_assets.scoring.registry import Backend, Indicator
from im_resources.warehouse import Warehouse

COLUMNS = ["example_id", "indicator", "backend", "fingerprint", "value"]


def indicators(*names: str) -> list[Indicator]:
    return [Indicator(name, Backend(f"b-{name}", lambda batch: 0.0, 1), {}) for name in names]


def test_scores_are_those_of_the_examples_names_and_versions_asked_for(tmp_path: Path) -> None:
    """Against a plain selection from the frame, as it was done before."""
    rng, ids = np.random.default_rng(0), [f"id-{i:04d}" for i in range(3000)]
    chosen, keys = indicators("ppl", "len", "ä"), {"ppl": "v2", "len": "v1", "ä": "v2"}
    cache = pd.DataFrame(
        [(i, name, f"b-{name}", version) for i in ids for name in keys for version in ("v1", "v2")],
        columns=COLUMNS[:-1],
    ).assign(value=rng.normal(size=3000 * 6))
    cache = cache.sample(frac=1, random_state=0)
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.append("score_cache", cache, COLUMNS[:-1])
    asked = list(rng.permutation(ids)[:2500])
    before = cache[(cache["fingerprint"] == cache["indicator"].map(keys))]
    before = before[before["example_id"].isin(set(asked))]
    before = before.sort_values(["example_id", "indicator", "fingerprint"], ignore_index=True)
    found = long_scores(asked, cached_scores(asked, keys, warehouse), chosen, keys)
    pd.testing.assert_frame_equal(found.astype(before.dtypes.to_dict()), before)
    # The catalog's version of the table is the same too.
    assert content_version(found) == content_version(before)
    # And so are the columns of the warehouse.
    warehouse.replace_table("now", found)
    pd.testing.assert_frame_equal(warehouse.read_table("now"), before)


def test_what_is_not_cached_is_missing(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    assert np.isnan(cached_scores(["a"], {"ppl": "v1"}, warehouse)).all()
    row = pd.DataFrame([("a", "ppl", "b", "v1", 2.5)], columns=COLUMNS)
    warehouse.append("score_cache", row, COLUMNS[:-1])
    found = cached_scores(["b", "a"], {"len": "v1", "ppl": "v1"}, warehouse)
    np.testing.assert_array_equal(found, [[np.nan, np.nan], [np.nan, 2.5]])
