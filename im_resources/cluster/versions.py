"""What has to be equal where work is sent from and where it is done."""

import hashlib
import importlib.metadata
import sys
from functools import cache

from im_resources.study.places import PROJECT_ROOT

PACKAGES = ("ray", "torch", "transformers", "peft")
CODE = ("im_assets", "im_resources", "sql")
SUFFIXES = (".py", ".sql")


@cache
def versions() -> dict[str, str]:
    """The versions of this process: python, the packages that change results, and our own code.

    A build of torch for another accelerator (2.9.0+cu128) is the same version.
    """
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"code": code_version()}


def code_version() -> str:
    """A digest of the project's modules and SQL, which a node may have older ones of."""
    digest = hashlib.sha256()
    for folder in CODE:
        files = (p for p in (PROJECT_ROOT / folder).rglob("*") if p.suffix in SUFFIXES)
        for path in sorted(files):
            digest.update(f"{path.relative_to(PROJECT_ROOT)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def differences(mine: dict[str, str], theirs: dict[str, str]) -> str:
    """What differs, in words; empty where nothing does."""
    differing = [name for name in mine if theirs.get(name) != mine[name]]
    return ", ".join(f"{n} {theirs.get(n, 'unknown')} there, {mine[n]} here" for n in differing)
