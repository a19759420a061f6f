"""Tables in files: they go to a warehouse and come from it a part at a time, and leave nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from im_assets.common.versions import content_version, stored_version
from im_resources.lake_address import LakeAddress
from im_resources.spooled import Scratch, Spooled, write_table
from im_resources.study import PROJECT_ROOT
from im_resources.warehouse import Warehouse, WarehouseError
from im_resources.warehouse_io_manager import WarehouseIOManager
from tests import servers

FRAME = pd.DataFrame(
    {
        "example_id": [f"id-{n}" for n in range(50)],
        "source": ["one", "two"] * 25,
        "line": range(50),
        "own_id": [None] * 50,
        "score": [0.5, None] * 25,
    }
)


@pytest.fixture(scope="module")
def catalog() -> Iterator[str]:
    if reason := servers.missing():
        pytest.skip(reason)
    with servers.postgres() as database, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", servers.PASSWORD)
        yield database.create("im")


@pytest.fixture(params=["file", "lake"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "warehouse.duckdb")
    catalog = request.getfixturevalue("catalog")
    name = f"t{tmp_path.name.replace('-', '_')}"[-40:]
    return str(LakeAddress(catalog, name, str(tmp_path / "data")))


def files(frame: pd.DataFrame, folder: Path, rows: int = 7) -> Spooled:
    folder.mkdir()
    whole = pa.Table.from_pandas(frame, preserve_index=False)
    whole = whole.cast(pa.schema([(n, pa.string() if n == "own_id" else whole.schema.field(n).type)
                                  for n in whole.column_names]))  # fmt: skip
    starts = range(0, max(1, len(frame)), rows)
    parts = [write_table(whole.slice(n, rows), folder / f"{n:03}.parquet") for n in starts]
    return Spooled(tuple(parts), len(frame))


def test_rows_in_files_become_the_table_that_a_frame_would(place: str, tmp_path: Path) -> None:
    warehouse, rows = Warehouse(place), files(FRAME, tmp_path / "rows")
    warehouse.replace_table("a_frame", FRAME)
    warehouse.replace_table("in_files", pd.DataFrame({"other": [1]}))
    warehouse.replace_from("in_files", rows)
    assert warehouse.column_types("in_files") == warehouse.column_types("a_frame")
    found = warehouse.read_table("in_files")
    pd.testing.assert_frame_equal(found, warehouse.read_table("a_frame"))
    assert found["example_id"].tolist() == FRAME["example_id"].tolist()
    assert stored_version("in_files", warehouse) == content_version(found)
    back = warehouse.spooled(tmp_path / "back", "SELECT * FROM in_files ORDER BY line", rows=20)
    assert back.rows == 50
    pd.testing.assert_frame_equal(back.frame(), rows.frame())
    pd.testing.assert_frame_equal(back.head(9), rows.head(9))
    many = pd.concat([FRAME] * 3000, ignore_index=True).assign(line=range(150_000))
    warehouse.replace_from("many", files(many, tmp_path / "many", 9_000))
    assert warehouse.read_table("many", ["line"])["line"].tolist() == list(range(150_000))
    none = warehouse.spooled(tmp_path / "none", "SELECT line FROM in_files WHERE line < 0")
    assert (none.rows, list(none.frame())) == (0, ["line"])


def test_some_rows_are_replaced_and_none_besides(place: str, tmp_path: Path) -> None:
    warehouse = Warehouse(place)
    warehouse.replace_table("rows", FRAME)
    new = FRAME[FRAME["source"] == "two"].head(3).assign(score=9.0)
    for _ in range(2):
        warehouse.replace_from("rows", files(new, tmp_path / f"{_}"), {"source": "two"})
    found = warehouse.read_table("rows")
    assert found["source"].value_counts().to_dict() == {"one": 25, "two": 3}
    assert (found.loc[found["source"] == "two", "score"] == 9).all()
    with pytest.raises(WarehouseError, match="25 rows with a 'source' that is not being written"):
        warehouse.replace_from("rows", files(FRAME, tmp_path / "all"), {"source": "two"})
    pd.testing.assert_frame_equal(warehouse.read_table("rows"), found)
    warehouse.replace_from("new", files(new, tmp_path / "new"), {"source": "two"})
    assert len(warehouse.read_table("new")) == 3


def test_an_asset_may_give_files_and_is_read_as_a_frame(place: str, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch")

    @dg.asset
    def rows() -> dg.Output[Spooled]:
        spooled = files(FRAME, scratch.folder / "rows")
        return dg.Output(Spooled(spooled.files, spooled.rows, scratch))

    @dg.asset
    def read(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.head(2)

    result = dg.materialize(
        [rows, read], resources={"io_manager": WarehouseIOManager(database=place)}
    )
    (event,) = result.asset_materializations_for_node("rows")
    assert event.metadata["dagster/row_count"].value == 50
    assert len(Warehouse(place).read_table("read")) == 2


def test_a_scratch_folder_goes_with_who_holds_it_and_a_dead_ones_with_the_next(
    tmp_path: Path,
) -> None:
    first, second = Scratch(tmp_path), Scratch(tmp_path)
    held = Spooled((first.folder / "x",), 0, first)
    code = (
        "import os, sys; from pathlib import Path; from im_resources.spooled import Scratch\n"
        "scratch = Scratch(Path(sys.argv[1])); print(scratch.folder, flush=True); os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT_ROOT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    left = Path(done.stdout.strip())
    assert left.is_dir()
    folder = second.folder
    del second
    assert not folder.exists()
    third = Scratch(tmp_path)
    assert not left.exists()
    assert first.folder.is_dir()
    del first
    assert held.files[0].parent.is_dir()
    del held
    third.remove()
    assert list(tmp_path.iterdir()) == []
