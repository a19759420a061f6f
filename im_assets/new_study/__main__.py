"""``python -m im_assets.new_study NAME --candidates FILE … [--pool FILE …] [--evaluation FILE …]``:
writes a commented profile for a user's own files, ``profiles/NAME.yaml``; ``make new-study``.

A FILE is a file, a pattern in quotes (``"data/*.csv"``) or a folder, and may have a name in front
of it (``support=tickets.csv``); files of one name are one source. Without candidates the profile
applies a ready rule to the pool.
"""

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from im_assets.candidates.files import SourceError
from im_assets.candidates.format_registry import check_formats
from im_assets.new_study.looking import NoFormat
from im_assets.new_study.profile import described, profile_text, warnings
from im_assets.new_study.sources import sources
from im_resources.study import PROFILES, ProfileError, load_study
from im_resources.study.environment import in_a_new_shell
from im_resources.study.reading import profile_path
from im_resources.texts import printable

FIELDS = ("instruction", "input", "output", "category", "outputs")


class NewStudyError(ValueError):
    """A study that cannot be proposed: says what was asked for and what would do."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message where no profile can be written."""
    chosen = _parser().parse_args(arguments)
    try:
        print(new_study(chosen))
    except (NewStudyError, SourceError, NoFormat, ProfileError) as error:
        print("\n".join(map(printable, str(error).splitlines())), file=sys.stderr)
        return 1
    return 0


def new_study(chosen: argparse.Namespace) -> str:
    """Write the profile; what to tell of it.

    Raises NewStudyError, SourceError, NoFormat, and ProfileError for no such profile to extend.
    """
    name = chosen.name
    folder = Path(chosen.into).expanduser().absolute() if chosen.into else PROFILES
    path = folder / f"{name}.yaml"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise NewStudyError(
            f"NAME is {name!r}; it names a file and a folder: letters, digits, - and _"
        )
    if not folder.is_dir():
        raise NewStudyError(f"--into: there is no folder {folder}")
    if path.exists() and not chosen.replace:
        raise NewStudyError(
            f"{path} is there already: choose another NAME, or have it replaced with REPLACE=1 "
            "(--replace)"
        )
    if not (chosen.candidates or chosen.pool):
        raise NewStudyError(
            "no files were given. CANDIDATES=… (--candidates) is the data that finetunes are made "
            "on; POOL=… (--pool) is what is selected from, by default the candidates; EVAL=… "
            "(--evaluation) is what is measured on. For instance: make new-study NAME=mine "
            'CANDIDATES="data/support.csv data/chats.parquet" EVAL=data/eval.jsonl'
        )
    fields = _fields(chosen.fields)
    candidates = sources(chosen.candidates, fields)
    # Pools begin the names of assets, which have no hyphens.
    pools = [
        replace(pool, name=pool.name.replace("-", "_"))
        for pool in sources(chosen.pool, fields, taken=("example",))
    ]
    evaluation = sources([f"evaluation={text}" for text in chosen.evaluation], fields, True)
    base = _base(chosen.extends or ("demo" if candidates else "ready_rule"))
    profile = name if folder == PROFILES else str(path)
    measured = evaluation[0] if evaluation else None
    text = profile_text(name, profile, base, load_study(base), candidates, pools, measured)
    check(text, name)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NewStudyError(f"{path} cannot be written: {error.strerror}") from error
    told = [f"wrote {path}"]
    for kind, found in (("candidates", candidates), ("pool", pools), ("evaluation", evaluation)):
        told += [f"{kind} {source.name}: {' '.join(described(source))}" for source in found]
    told += [f"LOOK HERE: {warning}" for warning in warnings(candidates, pools, measured)]
    study = load_study(profile)
    if study.folder.exists():
        told.append(f"LOOK HERE: {study.folder} has results of an earlier study of this name")
    told += [
        "next, after a look at the profile:",
        f"  {in_a_new_shell('make run ARGS=--plan', profile)}",
        f"  {in_a_new_shell('make run', profile)}",
        f"  {in_a_new_shell('make dev', profile)}",
    ]
    return "\n".join(map(printable, told))


def check(text: str, name: str) -> None:
    """Read the profile as a run does, before anything is written. Raises NewStudyError."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            check_formats(load_study(str(path)).data)
        except ProfileError as error:
            said = str(error).replace(str(path), f"the profile that would be {path.name}")
            raise NewStudyError(f"{said}\nit was not written; give sources other names") from error


def _base(profile: str) -> str:
    """The profile to extend, as it is found from ``profiles/`` too."""
    path = profile_path(profile).resolve()
    return path.stem if path.parent == PROFILES else str(path)


def _fields(given: list[str]) -> dict[str, str]:
    """``field=column`` as a mapping. Raises NewStudyError for what is none."""
    found = {}
    for text in given:
        field, divider, column = text.partition("=")
        if not divider or field not in FIELDS or not column:
            raise NewStudyError(
                f"FIELDS has {text!r}; expected FIELD=COLUMN, with one of {', '.join(FIELDS)}"
            )
        found[field] = column
    if found and "instruction" not in found:
        raise NewStudyError("FIELDS has to name the column of the instruction: instruction=COLUMN")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m im_assets.new_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="of the study and its profile")
    for option, what in {
        "--candidates": "what finetunes are made on",
        "--pool": "what is selected from; default: the candidates",
        "--evaluation": "instructions with reference outputs",
    }.items():
        parser.add_argument(option, nargs="*", default=[], metavar="FILE", help=what)
    parser.add_argument("--extends", metavar="PROFILE", help="whose models and sizes are taken: "
                        "demo (default) or real_small, or one of your own")  # fmt: skip
    parser.add_argument("--fields", nargs="*", default=[], metavar="FIELD=COLUMN",
                        help="columns whose names do not say what they hold")  # fmt: skip
    parser.add_argument("--into", metavar="FOLDER", help="where to write it; default: profiles/")
    parser.add_argument("--replace", action="store_true", help="a profile that is there already")
    return parser


if __name__ == "__main__":
    sys.exit(main())
