"""The sources that a user names on the command line: ``[name=]file``, a pattern, or a folder."""

import glob
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from im_assets.candidates.files import KINDS, SourceError, source_files
from im_assets.candidates.unpacking import PACKINGS
from im_assets.new_study.looking import Look, look
from im_resources.study import PROJECT_ROOT, DataSource

FILES = 20  # of a source that are looked at
_NAMED = re.compile(r"([A-Za-z0-9][\w-]*)=(.+)", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A source of the profile.

    Attributes:
        paths: files and patterns, from the project's root where they are in it.
        files: how many they are; ``looks``: the first 20 of them, as they were seen.
    """

    name: str
    paths: tuple[str, ...]
    files: int
    looks: tuple[Look, ...]


def sources(
    given: Iterable[str],
    fields: Mapping[str, str],
    evaluation: bool = False,
    taken: Collection[str] = (),
) -> list[Source]:
    """The sources of these arguments, looked at.

    An argument without a name is a source of its own, called after its file; those of one name are
    one source, whose files have to be of one shape.

    Args:
        fields, evaluation: as `looking.look` has them.
        taken: names that no source may have.

    Raises:
        SourceError: absent or unreadable files, or files of several shapes in one source.
        NoFormat: no format reads a file.
    """
    grouped: dict[str, list[str]] = {}
    for argument in given:
        named = None if Path(argument).expanduser().exists() else _NAMED.fullmatch(argument)
        paths = _patterns(named[2] if named else argument)
        if named:
            grouped.setdefault(named[1], []).extend(paths)
        else:
            grouped[_name(argument, {*grouped, *taken})] = paths
    return [_source(name, paths, fields, evaluation) for name, paths in grouped.items()]


def _source(name: str, paths: list[str], fields: Mapping[str, str], evaluation: bool) -> Source:
    files = list(source_files(DataSource(path=tuple(paths))))
    looks = [look(file, fields, evaluation) for file in files[:FILES]]
    for seen in looks[1:]:
        if seen.settings != looks[0].settings:
            raise SourceError(
                f"source {name!r}: {looks[0].path} is read as {dict(looks[0].settings)}, and "
                f"{seen.path} as {dict(seen.settings)}; files of one source have one shape: give "
                "the others as another source (another=FILE)"
            )
    return Source(name, tuple(map(_from_root, paths)), len(files), tuple(looks))


def _patterns(text: str) -> list[str]:
    """The path as it is absolute; of a folder, a pattern for each kind of file in it.

    Raises SourceError for what is not there, and for a folder without data files.
    """
    path = Path(os.path.abspath(Path(text).expanduser()))  # not resolved: links stay as they are
    if not path.is_dir():
        if not path.exists() and not glob.has_magic(str(path)):
            raise SourceError(f"there is no file or folder {path}")
        return [str(path)]
    found = {suffix for file in path.iterdir() if (suffix := _suffix(file)) and file.is_file()}
    if not found:
        raise SourceError(f"{path}: a folder without data files ({', '.join(KINDS)})")
    return [f"{glob.escape(str(path))}/*{suffix}" for suffix in sorted(found)]


def _suffix(file: Path) -> str:
    """What the name says of the kind, with the packing; '' for what is no data file."""
    suffixes = file.suffixes[-2:]
    packing = suffixes.pop() if suffixes and suffixes[-1].lower() in PACKINGS else ""
    kind = suffixes[-1] if suffixes else ""
    return kind + packing if kind.lower() in KINDS else ""


def _from_root(path: str) -> str:
    root = f"{PROJECT_ROOT}{os.sep}"
    return path.removeprefix(root)


def _name(argument: str, taken: Collection[str]) -> str:
    """A name for a source, after its file or folder: letters, digits and ``_``, not taken yet."""
    path = Path(argument.rstrip("/"))
    stem = path.name.removesuffix(_suffix(path))
    while glob.has_magic(stem) and path.parent != path:
        stem = re.split(r"[*?\[]", stem)[0]  # of pool-*.jsonl: pool-
        if not re.search(r"[A-Za-z]{3}", stem):  # t*.jsonl says nothing
            path = path.parent
            stem = path.name
    plain = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_").lower() or "source"
    plain = plain if plain[0].isalpha() else f"source_{plain}"
    lowered = {name.lower() for name in taken}
    number = 1
    while (name := plain if number == 1 else f"{plain}_{number}") in lowered:
        number += 1
    return name
