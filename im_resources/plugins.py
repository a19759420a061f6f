"""Plugins: modules outside of this project that add entries to its registries.

Two ways in. A profile names modules, ``plugins: [mypackage.indicators]``; a module may be
installed, or be a file beside the profile. And an installed package may announce one, for every
profile, as an entry point of the group ``instruction_mining``. Importing the module registers what
it adds (docs/extending.md); what an entry computes is known by the entry's own name and version.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from im_resources.study import ProfileError, Study

GROUP = "instruction_mining"


def load_plugins(study: Study) -> None:
    """Import the modules of the study's ``plugins`` and of the installed entry points.

    Called before the first name is looked up in a registry; again it does nothing. The folders of
    the profile, and of those that it extends, become importable, after everything installed.

    Raises ProfileError when a module is not there, fails, or is hidden by an installed one.
    """
    for entry_point in entry_points(group=GROUP):
        _load(entry_point)
    if study.plugins:
        folders = map(str, study.profile_folders)
        sys.path.extend(folder for folder in folders if folder not in sys.path)
    for name in study.plugins:
        _import(name, study.profile_folders)


def plugin_files(study: Study) -> dict[str, bytes]:
    """The files of the study's plugins that lie beside its profile, by their paths from there."""
    found: dict[str, bytes] = {}
    for folder in study.profile_folders:
        for name in study.plugins:
            top = name.split(".")[0]
            for path in [folder / f"{top}.py", *sorted((folder / top).rglob("*"))]:
                if path.is_file() and "__pycache__" not in path.parts:
                    found.setdefault(path.relative_to(folder).as_posix(), path.read_bytes())
    return found


def with_plugin_files(study: Study, files: Mapping[str, bytes], folder: Path) -> Study:
    """The study with a folder that holds the files of its plugins (``plugin_files``)."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    copy = study.model_copy()
    copy._profile_folders = (folder,)
    return copy


def _import(name: str, folders: Sequence[Path]) -> None:
    importlib.invalidate_caches()  # the file may be younger than this process
    try:
        module = importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _with_parents(name):
            searched = ", ".join(map(str, folders)) or "no profile's folder"
            raise ProfileError(
                f"plugins: there is no module {name!r} (no {error.name!r}); searched: the "
                f"installed packages, and beside the profile: {searched}"
            ) from error
        raise ProfileError(f"plugins: {name!r} cannot be imported: {_told(error)}") from error
    beside = [folder / path for folder in folders for path in _paths(name)]
    found = Path(module.__file__ or "").resolve()
    wanted = [path.resolve() for path in beside if path.is_file()]
    if wanted and found not in wanted:
        raise ProfileError(
            f"plugins: {name!r} is {found}, which hides {wanted[0]} beside the profile; give your "
            "module another name"
        )


def _load(entry_point: EntryPoint) -> None:
    try:
        entry_point.load()
    except Exception as error:
        owner = entry_point.dist.name if entry_point.dist else "an installed package"
        raise ProfileError(
            f"the entry point {entry_point.name!r} of {owner} (group {GROUP}: {entry_point.value}) "
            f"cannot be loaded: {_told(error)}; correct or uninstall it"
        ) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _paths(name: str) -> tuple[str, str]:
    path = name.replace(".", "/")
    return f"{path}.py", f"{path}/__init__.py"
