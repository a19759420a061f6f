"""``python -m im_resources.backup``: backs a deployment up while it runs, and restores it.

::

    python -m im_resources.backup create FOLDER [--keep N]
    python -m im_resources.backup verify FOLDER/NAME
    python -m im_resources.backup restore FOLDER/NAME

One backup is a folder of plain files: ``dagster.dump`` (Dagster's Postgres, by pg_dump),
``warehouse.duckdb``, ``study/`` (adapters, rule, selections, report), ``logs/`` (what runs printed)
and, last, ``manifest.json`` with the SHA-256 of each. The folder gets its name when all is there.

Runs may go on meanwhile. What refers to something is copied before it: the history before the
tables that it tells of, these before the adapters that they name. The tables of a lake are not in
it: they are backed up where they are (docs/warehouse.md), after this. So a restored history knows
nothing that is not there; what is newer than it shows as not yet materialized, and is found in the
caches when it is made again.
"""

import argparse
import importlib.metadata
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from im_resources import database_dump
from im_resources.database_dump import BackupError
from im_resources.deployment.making import warehouse_of
from im_resources.lake_address import LakeAddress
from im_resources.published import sha256
from im_resources.runs import RUNNING, free
from im_resources.snapshot import snapshot
from im_resources.study import Study
from im_resources.study.environment import STATE, environment
from im_resources.tables import WarehouseError
from im_resources.warehouse_faults import snapshot_path, write_ahead_log
from im_resources.warehouse_turns import Wait, connect, turn

MANIFEST, DATABASE, WAREHOUSE = "manifest.json", "dagster.dump", "warehouse.duckdb"
STUDY, LOGS = "study", "logs"


def create(folder: Path, study: Study, keep: int | None = None) -> Path:
    """Back the study up below ``folder``; the new backup's own folder.

    With ``keep``, only so many of this study's backups stay, the newest ones.

    Raises BackupError when the database cannot be dumped, WarehouseError when the warehouse cannot
    be copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{study.name}-{_now()}"
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        database_dump.dump(work / DATABASE)
        warehouse = warehouse_of(study)
        if study.warehouse.exists() and not warehouse.is_lake:
            shutil.copyfile(snapshot(study), work / WAREHOUSE)
        _copy(study.folder, work / STUDY, but=_own_ways(study))
        logs = _logs(study)
        # Without the locks of what runs now: restored, nothing does.
        _copy(logs, work / LOGS, but={logs / RUNNING})
        manifest = {
            "study": study.name,
            # Whose tables are not in the backup.
            **({"lake": warehouse.name} if warehouse.is_lake else {}),
            "made": name.removeprefix(f"{study.name}-"),
            "versions": {p: importlib.metadata.version(p) for p in ("dagster", "duckdb")},
            "files": {str(p.relative_to(work)): sha256(p) for p in _files(work)},
        }
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (work / MANIFEST).write_text(text, encoding="utf-8")
        os.sync()  # on the disk before it counts as a backup
        work.rename(folder / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if keep is not None:
        # Names sort by time.
        for old in sorted(folder.glob(f"{study.name}-*Z/{MANIFEST}"))[:-keep]:
            shutil.rmtree(old.parent)
    return folder / name


def verify(backup: Path) -> dict[str, Any]:
    """The backup's manifest. Raises BackupError naming what is missing or was changed."""
    try:
        manifest: dict[str, Any] = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, str] = manifest["files"]
    except (OSError, ValueError, KeyError) as error:
        raise BackupError(f"{backup} is no complete backup: {MANIFEST}: {error}") from error
    for name, digest in files.items():
        path = backup / name
        if not path.is_file() or sha256(path) != digest:
            raise BackupError(f"{path} is not what was backed up; use another backup")
    return manifest


def restore(backup: Path, study: Study) -> Path:
    """Put study, history and logs back to the backup; the folder with what was there before.

    Everything is checked and copied before anything is replaced, and replaced by renames.

    Raises BackupError when the backup is damaged or another study's, and while something uses the
    database; WarehouseError while something uses the warehouse.
    """
    made_of = verify(backup)["study"]
    if made_of != study.name:
        raise BackupError(
            f"{backup} is of the study {made_of!r}, but IM_PROFILE names {study.name!r}"
        )
    _refuse_in_use(study)
    logs = _logs(study)
    aside = study.folder.with_name(f"{study.name}.before-{_now()}")
    new = study.folder.with_name(f".{study.name}.restoring")
    shutil.rmtree(new, ignore_errors=True)  # of a restoration that was killed
    _copy(backup / STUDY, new)
    if (backup / WAREHOUSE).exists():
        shutil.copy2(backup / WAREHOUSE, new / study.warehouse.name)
    aside.mkdir(parents=True)
    database_dump.dump(aside / DATABASE)
    database_dump.restore(backup / DATABASE)
    if study.folder.exists():
        study.folder.rename(aside / STUDY)
    new.rename(study.folder)
    _fail_unfinished_runs()
    # The folder itself may be a mount, which cannot be renamed: its content is replaced.
    _empty_into(logs, aside / LOGS)
    _copy(backup / LOGS, logs)
    return aside


def _fail_unfinished_runs() -> None:
    """What was going on when the history was dumped has no process any more, and frees its slots.

    Runs that waited in the queue wait on.
    """
    going_on = (
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    )
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=[*going_on])):
            instance.report_run_failed(run, "This run was going on when the backup was made.")
            free(instance, run.run_id)


def _refuse_in_use(study: Study) -> None:
    if users := database_dump.users():
        raise BackupError(
            f"Dagster's database is in use ({', '.join(users)}); stop webserver, daemon and code "
            "location first"
        )
    # The turn that a run takes to write; readers have it for a moment.
    if study.warehouse.exists():
        wait = Wait(study.warehouse, seconds=5)
        # Damaged, but used by nobody.
        with suppress(duckdb.Error), turn(wait), connect(wait, {}):
            pass


def _logs(study: Study) -> Path:
    return Path(os.environ.get(STATE) or study.history)


def _own_ways(study: Study) -> set[Path]:
    """What is backed up by other means than copying."""
    warehouse = study.warehouse
    files = {warehouse, write_ahead_log(warehouse), Path(f"{warehouse}.lock")}
    return {*files, snapshot_path(warehouse).parent, study.history}


def _copy(source: Path, target: Path, but: Collection[Path] = ()) -> None:
    """Copy a tree that others may write to.

    Hidden files are unfinished ones, and what is gone by the time it is copied was not needed.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in _files(source, but):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(path, copied)
        except FileNotFoundError:
            continue


def _files(folder: Path, but: Collection[Path] = ()) -> Iterator[Path]:
    """The plain files below ``folder``, in order; none hidden, none below ``but``."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path in but or path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path, but)
        elif path.is_file():
            yield path


def _empty_into(folder: Path, aside: Path) -> None:
    aside.mkdir(parents=True)
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        shutil.move(entry, aside / entry.name)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _tell_of_lake(backup: Path, what: str) -> None:
    if lake := json.loads((backup / MANIFEST).read_text(encoding="utf-8")).get("lake"):
        address = LakeAddress.parse(lake)
        assert address is not None
        dump = f"pg_dump --schema='\"{address.schema}\"' {shlex.quote(address.catalog)}"
        print(
            f"the tables are not in it, but in a lake: {what}: its catalog ({dump}), and after "
            f"that the files in {address.folder}; no upkeep (im_resources.lake_upkeep) in between"
        )


def main() -> int:
    """The command; 1 with one line that says why when it could not be done."""
    parser = argparse.ArgumentParser(prog="python -m im_resources.backup")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("create", "verify", "restore"):
        commands.add_parser(command).add_argument("folder", type=Path)
    commands.choices["create"].add_argument("--keep", type=int, help="delete all older but so many")
    given = parser.parse_args()
    if given.command == "create" and given.keep is not None and given.keep < 1:
        parser.error(f"--keep: {given.keep} would keep none; 1 or more")
    study = environment()[0]
    try:
        if given.command == "create":
            backup = create(given.folder, study, given.keep)
            print(backup)
            _tell_of_lake(backup, "back them up too, now")
        elif given.command == "verify":
            print(f"{given.folder}: {len(verify(given.folder)['files'])} files as backed up")
        else:
            print(f"restored; what was there before: {restore(given.folder, study)}")
            _tell_of_lake(given.folder, "put their own backup back too, of the same time or later")
    except (BackupError, WarehouseError, OSError) as error:
        print(f"{given.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
