"""Lands what is in a folder, and is killed before, within or after the n-th call of a function.

``python -m tests.landing.dying KIND FOLDER FUNCTION WHEN N``
"""

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import fsspec

from im_assets.landing.admitting import land
from im_assets.landing.assets import targets
from im_assets.landing.folder import Folder
from im_assets.landing.local import LocalFolder
from im_assets.landing.remote import RemoteFolder
from im_resources.study import Study
from im_resources.warehouse import Warehouse
from tests.landing.places import Place, landing_study, local


def folder_of(kind: str, place: Place) -> Folder:
    """A folder of this machine, or the same through fsspec, as if it were a store far away."""
    if kind == "local":
        return LocalFolder(Path(place.url), place.url)
    return RemoteFolder(fsspec.filesystem("file"), place.url, place.url)


def land_all(kind: str, place: Place, study: Study) -> None:
    folder, warehouse = folder_of(kind, place), Warehouse(study.warehouse)
    land(folder.look(targets(study)).arrivals, folder, study, warehouse, told=0)


def die_at(where: str, when: str, nth: int) -> None:
    """Let the n-th call of ``module:function`` be the last thing that this process does."""
    module, _, name = where.rpartition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    step, count = getattr(owner, name), nth

    def dying(*args: Any, **options: Any) -> Any:
        nonlocal count
        count -= 1
        if count == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == 0 and when == "within":
            args[2].write(b"half of it")
            args[2].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        result = step(*args, **options)
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


if __name__ == "__main__":
    _kind, _folder, _where, _when, _nth = sys.argv[1:]
    die_at(_where, _when, int(_nth))
    land_all(_kind, _place := local(Path(_folder)), landing_study(_place))
