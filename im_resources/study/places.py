"""Where things lie: the project, its profiles, and the folder of everything that is written."""

import glob
import os
import re
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
PROFILES = PROJECT_ROOT / "profiles"
DEPLOYMENT = "IM_DEPLOYMENT"  # names the file that says where a study runs
THIS_MACHINE = "this_machine"  # the one that is used where it is not set


class ProfileError(ValueError):
    """A profile that cannot be used; names the field, its value and what is accepted."""


def state_home() -> Path:
    """The folder of everything that the platform writes: ``$IM_HOME``, default ``var/``."""
    return Path(os.environ.get("IM_HOME") or PROJECT_ROOT / "var").resolve()


def history_name() -> str:
    """The folder of Dagster's history within a study's: one for each deployment, since what is
    materialized in one is not there in another."""
    name = Path(os.environ.get(DEPLOYMENT) or THIS_MACHINE).stem
    return "dagster" if name == THIS_MACHINE else f"dagster-{name}"


def resolve_path(text: str) -> Path:
    """Expand ``${VARIABLES}`` and ``~``; relative paths start at the project's root.

    Raises ProfileError when a variable is not set, or it is no path: a loop of symbolic links, or
    with a zero byte in it.
    """
    expanded = expand_variables(text)
    try:
        return (PROJECT_ROOT / Path(expanded).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # each by another version of Python
        raise ProfileError(f"path {text!r} cannot be used: {error}") from error


def resolve_files(text: str) -> list[Path]:
    """The files that a path with ``*``, ``**``, ``?`` or ``[…]`` in it means, sorted; of any other
    path, and of a file that is named so itself, this one, there or not.

    Raises ProfileError as `resolve_path` does.
    """
    path = resolve_path(text)
    if not glob.has_magic(str(path)) or path.exists():
        return [path]
    found = map(Path, glob.glob(str(path), recursive=True))
    return sorted(file for file in found if file.is_file())


def expand_variables(text: str) -> str:
    """Put the environment's values in the place of ``${VARIABLES}`` in a path or a URL.

    Raises ProfileError when a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ProfileError(
                f"path {text!r} needs the environment variable {match[1]}, which is not set"
            )
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", value, text)
