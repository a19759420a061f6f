"""The platform runs on Linux and macOS, Python 3.11 to 3.13; CI runs on one of them.

So the known traps are looked for in the sources. Types find more of them: mypy reads the standard
library as of 3.11, and ``mypy --platform darwin`` as macOS has it.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from im_resources.gpu import usable_cores
from im_resources.study import PROJECT_ROOT

SOURCES = sorted(
    path
    for folder in ("im_assets", "im_resources", "benchmarks", "tests")
    for path in (PROJECT_ROOT / folder).rglob("*.py")
)

NO_MAC = "macOS has none"
NAMES = {
    "os.sched_getaffinity": f"{NO_MAC}: im_resources.gpu.usable_cores",
    "os.sched_setaffinity": NO_MAC,
    "os.fdatasync": f"{NO_MAC}: os.fsync",
    "os.posix_fadvise": NO_MAC,
    "os.posix_fallocate": NO_MAC,
    "os.memfd_create": NO_MAC,
    "os.getrandom": f"{NO_MAC}: os.urandom",
    "os.copy_file_range": f"{NO_MAC}: shutil.copyfile",
    "os.pidfd_open": NO_MAC,
    "os.O_DIRECT": NO_MAC,
    "os.O_TMPFILE": f"{NO_MAC}: tempfile",
    "select.epoll": f"{NO_MAC}: selectors",
    "signal.sigtimedwait": NO_MAC,
    "resource.prlimit": NO_MAC,
    "resource.getrusage": "ru_maxrss is in KiB on Linux, in bytes on macOS",
    "os.fork": "aborts in Apple's libraries once threads run: subprocess",
    "os.process_cpu_count": "3.13: im_resources.gpu.usable_cores",
    "itertools.batched": "3.12",
    "typing.override": "3.12: typing_extensions",
    "typing.TypeAliasType": "3.12",
    "typing.TypeIs": "3.13",
    "typing.ReadOnly": "3.13",
    "warnings.deprecated": "3.13",
    "copy.replace": "3.13: dataclasses.replace",
    "math.sumprod": "3.12",
    "random.binomialvariate": "3.12",
    "pathlib.UnsupportedOperation": "3.13",
    "queue.ShutDown": "3.13",
}
# Modules that 3.12 and 3.13 have removed (PEP 594, PEP 632).
GONE = {"distutils", "imp", "asynchat", "asyncore", "smtpd", "cgi", "cgitb", "crypt", "pipes"}
GONE |= {"telnetlib", "imghdr", "uu"}
ARGUMENTS = {
    "onexc": "shutil.rmtree has it since 3.12",
    "delete_on_close": "tempfile has it since 3.12",
    "walk_up": "Path.relative_to has it since 3.12",
    "case_sensitive": "Path.glob has it since 3.12",
    "recurse_symlinks": "Path.glob has it since 3.13",
}
PATHS = ("/proc/", "/sys/", "/dev/shm")
FORK = "fork is not safe on macOS, nor beside threads: spawn"
# What GNU's tools, make 4 and bash 4 have, and macOS's (BSD, make 3.81, bash 3.2) have not.
SHELL = {
    r"\bsed (-\w+ )*-[ir]": "BSD sed wants a suffix after -i, and -E for -r",
    r"\bgrep (-\w+ )*-\w*P": "GNU only",
    r"\b(nproc|timeout|realpath|tac|sha256sum|md5sum)\b": "GNU only",
    r"\breadlink -f|\bstat -c|\bdate (-d|--)|\bxargs -r|\bcp (-t|--)": "GNU only",
    r"\bfind -|\bfind (-\w+ )*[^|]*-printf": "BSD find wants a folder, and has no -printf",
    r"\.ONESHELL|\.RECIPEPREFIX|\$\(file |::=|^\w+ *!=|^undefine|&:": "make 4",
    r"\bmapfile\b|\breadarray\b|declare -A|\$\{\w+(,,|\^\^)": "bash 4",
}


def faults(source: str) -> Iterator[tuple[int, str]]:
    """Line and reason of each trap in Python source."""
    tree = ast.parse(source, feature_version=(3, 11))
    known: dict[str, str] = {}  # what a name of the file stands for
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                known |= {n.asname or n.name: n.name for n in names}
                yield from ((node.lineno, f"{n.name}: gone") for n in names if n.name in GONE)
            case ast.ImportFrom(module=str(module), names=names):
                known |= {n.asname or n.name: f"{module}.{n.name}" for n in names}
                if module in GONE:
                    yield node.lineno, f"{module}: gone"
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in known:
                found = f"{known[name]}.{attribute}"
            case ast.Name(id=name) if name in known:
                found = known[name]
            case ast.Call(func=ast.Attribute(attr="set_start_method" | "get_context")):
                if any(isinstance(a, ast.Constant) and a.value == "fork" for a in node.args):
                    yield node.lineno, FORK
                continue
            case ast.keyword(arg=str(argument)) if argument in ARGUMENTS:
                yield node.lineno, f"{argument}: {ARGUMENTS[argument]}"
                continue
            case ast.Constant(value=str(text)) if text.startswith(PATHS):
                yield node.lineno, f"{text!r}: {NO_MAC}"
                continue
            case _:
                continue
        if found in NAMES:
            yield node.lineno, f"{found}: {NAMES[found]}"


def shell_faults(text: str) -> list[str]:
    """The traps in the lines of a Makefile or a shell script that are no comments."""
    lines = [line for line in text.splitlines() if not line.lstrip("\t @").startswith("#")]
    return [
        f"{line}: {reason}"
        for line in lines
        for pattern, reason in SHELL.items()
        if re.search(pattern, line)
    ]


def test_no_source_steps_into_a_known_trap() -> None:
    # An attack to be run by hand forks before every touch; a process started anew would take hours.
    by_hand = PROJECT_ROOT / "tests/killing.py"
    found = [
        f"{path.relative_to(PROJECT_ROOT)}:{line}: {reason}"
        for path in SOURCES
        if path not in (Path(__file__), by_hand)
        for line, reason in faults(path.read_text(encoding="utf-8"))
    ]
    assert len(SOURCES) > 100
    assert found == []


@pytest.mark.parametrize("file", ["Makefile", ".ci/run"])
def test_make_and_ci_need_no_tool_that_macos_lacks(file: str) -> None:
    assert shell_faults((PROJECT_ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os\nlen(os.sched_getaffinity(0))", "usable_cores"),
        ("from os import sched_getaffinity as cores\ncores(0)", "usable_cores"),
        ("import itertools as it\nit.batched('abc', 2)", "3.12"),
        ("import distutils", "gone"),
        ("import multiprocessing\nmultiprocessing.get_context('fork')", "spawn"),
        ("import shutil\nshutil.rmtree('x', onexc=print)", "since 3.12"),
        ("open('/proc/meminfo')", "macOS"),
    ],
)
def test_a_trap_is_found(source: str, reason: str) -> None:
    assert [reason in found for _, found in faults(source)] == [True]


@pytest.mark.parametrize("line", ["\tsed -i s/a/b/ x", "\t@nproc", "X != date", "readlink -f ."])
def test_a_trap_of_the_shell_is_found(line: str) -> None:
    assert shell_faults(line)


def test_asking_whether_there_is_one_is_no_trap() -> None:
    assert list(faults("import os\ngetattr(os, 'sched_getaffinity', None)")) == []


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()


def test_what_is_said_to_be_supported_is_what_is_checked() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert project["tool"]["mypy"]["python_version"] == "3.11"


def old_syntax(*where: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Ruff's syntax errors as of 3.11; Python's own parser accepts some newer f-strings there."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--target-version", "py311"]
    return subprocess.run(
        [*command, "--select", "E9", "--no-cache", "--output-format", "concise", *where],
        cwd=PROJECT_ROOT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_source_has_the_syntax_of_the_oldest_python() -> None:
    done = old_syntax("im_assets", "im_resources", "benchmarks", "tests")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("text", ["print(f'{'a'}')\n", "type X = int\n", "def f[T](x: T): ...\n"])
def test_a_newer_syntax_is_found(text: str) -> None:
    done = old_syntax("-", text=text)
    assert done.returncode == 1
    assert "3.11" in done.stdout
