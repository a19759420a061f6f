"""``python -m im_resources.remote <url> <folder>``: what a URL holds, on this machine and checked.

The URL is that of a published folder, such as s3://mining/files/demo/exports/report: the one with
``manifest.json`` in it. The folder is there whole or not at all; an earlier version is replaced.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from im_resources.published import MANIFEST, DamagedFolder
from im_resources.remote.faults import RemoteError
from im_resources.remote.folders import RemoteFolders


def fetch(url: str, folder: Path) -> Path:
    """Bring the published folder at ``url`` to ``folder``, which is returned.

    Raises:
        FileNotFoundError: nothing is published there.
        FileExistsError: the folder holds something else.
        DamagedFolder, RemoteError, DiskError: as `RemoteFolders.fetch`.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise FileExistsError(f"{folder} holds something else; choose a folder of its own")
    parent, _, name = url.rstrip("/").rpartition("/")
    with tempfile.TemporaryDirectory() as known:
        found = RemoteFolders.at(parent, Path(known)).fetch(name, folder.resolve())
    if found is None:
        raise FileNotFoundError(f"nothing is published at {url}: there is no {MANIFEST} in it")
    return folder


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when it cannot be fetched."""
    parser = argparse.ArgumentParser(prog="python -m im_resources.remote", description=__doc__)
    parser.add_argument("url", help="of the folder with manifest.json in it")
    parser.add_argument("folder", type=Path, help="of this machine; an earlier one is replaced")
    chosen = parser.parse_args(arguments)
    try:
        print(fetch(chosen.url, chosen.folder))
    except (DamagedFolder, RemoteError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
