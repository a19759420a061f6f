"""What the doctor says of a lake that is well, not there yet, out of reach or out of time."""

import os
import time
from pathlib import Path

import pandas as pd
import pytest

from im_assets.doctor.findings import Finding
from im_assets.doctor.lake import lake
from im_resources.lake_address import LakeAddress
from im_resources.warehouse import Warehouse
from tests import servers


def told(address: LakeAddress) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in lake(address):
        assert servers.PASSWORD not in finding.what + finding.remedy
        found.setdefault(finding.level, []).append(finding)
    return found


def test_a_lake_that_is_well(lake_address: LakeAddress) -> None:
    before = told(lake_address)
    assert "is not there yet" in before["note"][0].what
    assert "error" not in before
    Warehouse(lake_address).replace_table("t", pd.DataFrame({"a": [1]}))
    after = told(lake_address)
    assert set(after) == {"ok"}, after
    assert "Postgres" in after["ok"][0].what
    assert "2 tables, snapshot" in after["ok"][1].what
    assert "can be written, read and deleted" in after["ok"][2].what
    assert not [file for file in Path(lake_address.folder).iterdir() if "doctor" in file.name]


@pytest.mark.parametrize(
    ("catalog", "what", "remedy"),
    [
        ("postgresql://im@127.0.0.1:1/im", "does not answer", "see that its Postgres runs"),
        ("{session}x", "there is no such database", "make it (createdb)"),
    ],
)
def test_a_catalog_that_cannot_be_used(
    lake_address: LakeAddress, catalog: str, what: str, remedy: str
) -> None:
    wrong = catalog.format(session=lake_address.catalog)
    (error,) = told(LakeAddress(wrong, "s", lake_address.data))["error"]
    assert what in error.what
    assert remedy in error.remedy


def test_a_wrong_password_is_told_and_not_shown(
    lake_address: LakeAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "guessed wrongly")
    (error,) = told(lake_address)["error"]
    assert "set PGPASSWORD" in error.what + error.remedy
    assert "guessed wrongly" not in error.what + error.remedy


def test_a_clock_that_is_off(lake_address: LakeAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("im_assets.doctor.lake.time.time", lambda: now() + 120)
    (warning,) = told(lake_address)["warning"]
    assert "120 s apart" in warning.what or "119 s apart" in warning.what
    assert "NTP" in warning.remedy


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(lake_address: LakeAddress, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        (error,) = told(lake_address)["error"]
    finally:
        tmp_path.chmod(0o755)
    assert "right" in error.remedy


def test_a_store_without_credentials(
    lake_address: LakeAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    elsewhere = LakeAddress(lake_address.catalog, lake_address.schema, "s3://mining/tables")
    (error,) = told(elsewhere)["error"]
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error.what
