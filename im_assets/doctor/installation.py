"""Python and the installed packages, against the lock and torch's pin."""

import platform
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from im_assets.doctor.findings import Finding, Level
from im_resources.study import PROJECT_ROOT

AREA = "installation"
AGAIN = "make install (rm .venv/.installed first, if it says that nothing is to be done)"
SHOWN = 5


def installation(root: Path = PROJECT_ROOT) -> Iterator[Finding]:
    """Findings on Python and packages; needs the project's ``pyproject.toml`` and lock."""
    python = f"Python {platform.python_version()}, {platform.platform(terse=True)}"
    if sys.version_info < (3, 11):  # noqa: UP036  found out here, where others only fail
        yield Finding("error", AREA, f"{python}: too old", "install Python 3.11 or newer")
    else:
        yield Finding("ok", AREA, python)
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {canonicalize_name(Requirement(d).name) for d in project["dependencies"]}
    torch = next(d for d in map(Requirement, project["dependencies"]) if d.name == "torch")
    lock = root / "requirements.lock"
    if not lock.is_file():
        yield Finding("warning", AREA, "there is no requirements.lock to compare with", "make lock")
        return
    wanted = [*locked(lock.read_text(encoding="utf-8")), torch]
    missing, other = [], []
    for requirement in wanted:
        found = installed(requirement.name)
        if found is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(found, prereleases=True):
            other.append(f"{requirement.name} {found} (wanted {requirement.specifier})")
    if missing:
        level: Level = "error" if needed & set(map(canonicalize_name, missing)) else "warning"
        yield Finding(level, AREA, f"not installed: {_some(missing)}", AGAIN)
    if other:
        yield Finding("warning", AREA, f"not the locked versions: {_some(other)}", AGAIN)
    if not missing and not other:
        yield Finding("ok", AREA, f"{len(wanted)} packages, as locked; torch {installed('torch')}")


def locked(lock: str) -> Iterator[Requirement]:
    """The requirements of a lock that apply to this machine."""
    for line in re.findall(r"^([A-Za-z0-9][^\\\n]*?) *\\?$", lock, re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


def installed(name: str) -> str | None:
    """The installed version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
