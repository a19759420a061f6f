"""A row of a file that landed leads to the copy that is kept, whatever the file was called."""

import json
from pathlib import Path

import dagster as dg

from im_assets.candidates.assets import pool_asset
from im_assets.landing.admitting import land
from im_assets.landing.assets import complete_files
from im_assets.landing.ledger import create, store_of
from im_resources.gpu import GpuResource
from im_resources.warehouse import Warehouse
from tests.landing.places import landing_study, local


def test_rows_of_files_with_one_name_are_told_apart(tmp_path: Path) -> None:
    place = local(tmp_path / "landing")
    study = landing_study(place)
    assert study.landing is not None
    warehouse = Warehouse(study.warehouse)
    create(warehouse)
    for number, words in enumerate(("amber beads", "quiet harbours")):
        row = {"id": f"new-{number}", "instruction": f"Tell of {words}.", "context": "",
               "response": f"There are {number} {words}, far in the north."}  # fmt: skip
        place.put("dolly/more.jsonl", b"\n" * number + json.dumps(row).encode())
        arrivals = complete_files(place.folder, study, study.landing, [])
        land(arrivals, place.folder, study, warehouse, number)
    made = pool_asset("dolly", measured=())(
        study=study, warehouse=warehouse, gpu=GpuResource(device="cpu")
    )
    assert isinstance(made, dg.Output)
    whole = made.value.frame()
    rows = whole[whole["file"].str.startswith("landed/")]
    assert rows["own_id"].tolist() == ["new-0", "new-1"]
    files = warehouse.read_table("landed_files").set_index("number")["file"]
    for row in rows.to_dict("records"):
        _, number, name = row["file"].split("/")
        assert name == "more.jsonl"
        copy = (store_of(study) / files[int(number)]).read_text("utf-8").split("\n")
        assert json.loads(copy[row["line"] - 1])["id"] == row["own_id"]
