"""Rows of landed files are erased: their words are in no file, the other rows where they were."""

from pathlib import Path

import pandas as pd
import pytest

from im_assets.candidates.content import example_id
from im_assets.candidates.reading import read_source
from im_assets.landing.admitting import land
from im_assets.landing.assets import complete_files
from im_assets.landing.forgetting import forget_landed
from im_assets.landing.ledger import admitted, create, source_of, store_of
from im_resources.study import Study
from im_resources.warehouse import Warehouse
from tests.landing.places import Place, landing_study, local, rows

GONE = example_id("b", "", "About b.")


def land_all(place: Place, study: Study, warehouse: Warehouse) -> None:
    assert study.landing is not None
    create(warehouse)
    land(complete_files(place.folder, study, study.landing, []), place.folder, study, warehouse, 0)


def content(study: Study, warehouse: Warehouse) -> pd.DataFrame:
    [entry] = admitted(warehouse, "terse")
    kept, rejected = read_source("terse", source_of(entry, study))
    kept = kept[["line", "instruction", "output"]]
    return pd.concat([kept, rejected[["line", "kind"]]]).sort_values("line", ignore_index=True)


def words_left(study: Study) -> list[Path]:
    files = [path for path in store_of(study).rglob("*") if path.is_file()]
    return [path for path in files if b"About b." in path.read_bytes()]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_a_row_is_erased_and_the_others_stay_where_they_were(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    place = local(tmp_path / "landing")
    study = landing_study(place)
    warehouse = Warehouse(study.warehouse)
    written = {
        "a.jsonl": rows("a", "b", "", "c"),
        "a.csv": b"instruction,input,output\na,,About a.\nb,,About b.\nc,,About c.\n",
        "a.json": b"[" + b",".join(rows("a", "b", "c").splitlines()) + b"]",
    }[name]
    place.put(f"terse/{name}", written)
    land_all(place, study, warehouse)
    before = content(study, warehouse)
    assert forget_landed({GONE}, study, warehouse) == [name]
    pd.testing.assert_frame_equal(
        content(study, warehouse),
        before[before["instruction"] != "b"].reset_index(drop=True),
    )
    assert not words_left(study)
    # Nothing more to do, and the same file again is no news.
    assert forget_landed({GONE}, study, warehouse) == []
    place.put(f"terse/again-{name}", written)
    land_all(place, study, warehouse)
    assert len(admitted(warehouse, "terse")) == 1
    assert not any(
        b"About b." in p.read_bytes() for p in store_of(study).rglob("*.*") if p.is_file()
    )


def test_other_files_are_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    place = local(tmp_path / "landing")
    study = landing_study(place)
    warehouse = Warehouse(study.warehouse)
    place.put("terse/a.jsonl", rows("a", "c"))
    land_all(place, study, warehouse)
    [before] = admitted(warehouse, "terse")
    assert forget_landed({GONE}, study, warehouse) == []
    assert admitted(warehouse, "terse") == [before]
