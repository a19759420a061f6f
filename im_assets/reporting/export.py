"""``python -m im_assets.reporting.export <profile> <folder>``: a report to publish.

The same report as the asset's, from the study's warehouse as it is, but without any text of the
data and without a date: for committing, or for showing to those who may not see the data.
"""

import argparse
import sys
from pathlib import Path

from im_assets.reporting.gather import ReportError, gather
from im_assets.reporting.report import make_report, write_report
from im_assets.reporting.sections.settings import versions
from im_resources.deployment.making import warehouse_of
from im_resources.remote import RemoteError
from im_resources.remote.exports import written_at
from im_resources.study import ProfileError, load_study
from im_resources.tables import WarehouseError


def export(profile: str, folder: Path) -> Path:
    """Write the report of the profile's study into ``folder`` and return the page's path.

    Raises:
        ReportError: the study has no warehouse, or a table in it lacks a column.
        ProfileError: no such profile.
        FileExistsError: the folder holds something else.
    """
    study = load_study(profile)
    warehouse = warehouse_of(study)
    if not warehouse.exists():
        raise ReportError(f"study {study.name!r} has not run: there is no {warehouse.name}")
    found = gather(study, warehouse, with_rows=False)
    return write_report(make_report(found, False, versions()), folder)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when the report cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m im_assets.reporting.export")
    parser.add_argument("profile", help="name of a profile, or path of its file")
    parser.add_argument(
        "folder", help="folder to write, or its URL (docs/files.md); an earlier report is replaced"
    )
    chosen = parser.parse_args(arguments)
    try:
        print(written_at(chosen.folder, "a report", lambda folder: export(chosen.profile, folder)))
    except (ReportError, ProfileError, WarehouseError, FileExistsError, RemoteError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
