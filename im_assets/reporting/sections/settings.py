"""The exact settings, and the versions of what ran."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import yaml

from im_assets.reporting.blocks import Code, Column, Section, Table
from im_assets.reporting.gather import Gathered

KEY, TITLE = "settings", "Exact settings and versions"
PACKAGES = ("torch", "transformers", "peft", "dagster", "duckdb", "numpy", "pandas", "statsmodels")


def versions() -> dict[str, str]:
    """Python, platform and the packages that a result may depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def section(found: Gathered, used: Mapping[str, str]) -> Section:
    """The profile with every default filled in, as YAML, and the versions; of a lake, also the
    snapshot that all tables are of."""
    if found.snapshot is not None:
        used = {**used, "lake snapshot": str(found.snapshot)}
    settings = found.study.model_dump(mode="json")
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=88)
    columns = (Column("name", "What", "text"), Column("version", "Version", "text"))
    rows = tuple({"name": name, "version": number} for name, number in used.items())
    return Section(
        KEY,
        TITLE,
        (
            Code("profile", "The profile, defaults included", text),
            Table("versions", "Versions", columns, rows),
        ),
    )
