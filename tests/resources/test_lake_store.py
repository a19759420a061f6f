"""A lake whose files are in an object store."""

from collections.abc import Iterator

import pandas as pd
import pytest

from im_assets.doctor.lake import lake
from im_resources import lake_upkeep
from im_resources.lake_address import LakeAddress
from im_resources.tables import WarehouseError
from im_resources.warehouse import Warehouse
from tests import lakes, servers

ROWS = pd.DataFrame({"key": range(500), "text": [f"text {n}" for n in range(500)]})


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    lakes.skip_without_servers()
    with servers.object_store() as variables:
        yield variables


@pytest.fixture
def address(
    store: dict[str, str], catalog_of_session: str, monkeypatch: pytest.MonkeyPatch
) -> LakeAddress:
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    return lakes.lake_in(catalog_of_session, "s3://mining/tables")


def test_tables_are_written_read_merged_and_erased_in_a_store(address: LakeAddress) -> None:
    import s3fs

    warehouse = Warehouse(address)
    warehouse.replace_table("t", ROWS)
    assert warehouse.append("t", pd.DataFrame({"key": [0, 500], "text": "new"}), ["key"]) == 1
    assert warehouse.read_table("t")["key"].tolist() == list(range(501))
    first = warehouse.snapshot()
    warehouse.replace_rows("t", pd.DataFrame(), {"key": list(range(100))})
    assert len(warehouse.read_table("t")) == 401
    assert first is not None
    assert len(warehouse.as_of(first).read_table("t")) == 501
    lake_upkeep.tidy(warehouse.place, keep_days=0)  # type: ignore[arg-type]
    assert warehouse.read_table("t")["key"].tolist() == list(range(100, 501))
    s3fs.S3FileSystem.clear_instance_cache()
    found = s3fs.S3FileSystem().find(f"{address.folder}main/t")
    assert len(found) == 1


def test_the_doctor_tries_the_store_and_leaves_nothing(address: LakeAddress) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    found = list(lake(address))
    assert [finding.level for finding in found] == ["ok", "note", "ok"]
    assert "can be written, read and deleted" in found[-1].what
    assert not s3fs.S3FileSystem().find(address.folder)


def test_a_bucket_that_is_not_there_is_told_at_once(address: LakeAddress) -> None:
    nowhere = LakeAddress(address.catalog, address.schema, "s3://no-such-bucket/tables")
    with pytest.raises(WarehouseError, match="no bucket for s3://no-such-bucket/tables") as told:
        Warehouse(nowhere, wait=60).replace_table("t", ROWS)
    assert "\n" not in str(told.value)
    assert "tests-secret" not in str(told.value)


def test_a_store_that_does_not_answer_is_told(
    address: LakeAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers.free_ports(1)[0]}")
    away = LakeAddress(address.catalog, address.schema, "s3://mining/away")
    with pytest.raises(WarehouseError, match="see that the store runs"):
        Warehouse(away, wait=0).replace_table("t", ROWS)
