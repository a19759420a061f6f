"""Backups that are no good are told apart; the whole way there and back is in tests/deploy."""

import hashlib
import json
from pathlib import Path

import pytest

from im_resources.backup import MANIFEST, create, main, restore, verify
from im_resources.database_dump import BackupError, dump
from im_resources.study import load_study


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A complete backup of a study that is called other."""
    folder = tmp_path / "other-20260101T000000Z"
    (folder / "study").mkdir(parents=True)
    (folder / "study" / "rule.json").write_bytes(b"{}")
    files = {"study/rule.json": hashlib.sha256(b"{}").hexdigest()}
    (folder / MANIFEST).write_text(json.dumps({"study": "other", "files": files}), encoding="utf-8")
    return folder


def test_a_complete_backup_is_accepted(backup: Path) -> None:
    assert verify(backup)["study"] == "other"


def test_a_changed_file_is_named(backup: Path) -> None:
    (backup / "study" / "rule.json").write_bytes(b"[]")
    with pytest.raises(BackupError, match=r"rule\.json is not what was backed up"):
        verify(backup)


def test_a_missing_file_is_named(backup: Path) -> None:
    (backup / "study" / "rule.json").unlink()
    with pytest.raises(BackupError, match=r"rule\.json is not what was backed up"):
        verify(backup)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_folder_without_a_whole_manifest_is_no_backup(backup: Path, content: str | None) -> None:
    (backup / MANIFEST).unlink()
    if content is not None:
        (backup / MANIFEST).write_text(content, encoding="utf-8")
    with pytest.raises(BackupError, match="is no complete backup"):
        verify(backup)


def test_another_studys_backup_is_refused_before_anything_is_touched(backup: Path) -> None:
    with pytest.raises(BackupError, match="is of the study 'other', but IM_PROFILE names 'demo'"):
        restore(backup, load_study("demo"))


def test_a_failed_backup_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Port 1: nobody listens there.
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://x@127.0.0.1:1/x")
    with pytest.raises(BackupError, match="pg_dump"):
        create(tmp_path, load_study("demo"))
    assert not list(tmp_path.iterdir())


def test_without_a_deployment_the_command_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    monkeypatch.setattr("sys.argv", ["backup", "create", str(tmp_path)])
    assert main() == 1
    assert "DAGSTER_POSTGRES_URL is not set" in capsys.readouterr().err


def test_a_password_in_the_address_is_no_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\necho "$@" "$PGHOST" >"$ARGUMENTS"\n[ "$PGPASSWORD" = s3cret ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("ARGUMENTS", str(tmp_path / "arguments"))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://x:s3cret@host/x")
    dump(tmp_path / "file")
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.endswith(" host\n")
    assert "s3cret" not in arguments
