"""kill -9 at every write boundary: work that dies at its n-th touch of its folder, for every n.

``python -m tests.killing WORK FOLDER STRIDE ARGUMENTS…`` runs the work once to its end, and then,
for n = 1, 1 + STRIDE, … as long as there is an n-th touch, in a fresh folder each: once with a
SIGKILL just before it opens, makes, renames or removes the n-th thing there, and once more to its
end. It prints as JSON how many points there were, and those after which the result was another one.
Every run is a process of its own, forked from one that has imported everything and done nothing.
"""

import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from im_resources.study import PROJECT_ROOT

Work = Callable[..., str]
# What the work imports on first use: seconds, were it done in every run.
IMPORTS = (
    "peft",
    "bitsandbytes",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
    "im_resources.language_model.finetuned",
    "im_resources.language_model.lora",
)
TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def attacked(work: str, folder: Path, stride: int, *arguments: str) -> dict[str, Any]:
    """What the attack on ``work`` ("module:function") in a process of its own gave."""
    command = [sys.executable, "-m", "tests.killing", work, str(folder), str(stride), *arguments]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def digest_of(folder: Path, pattern: str) -> str:
    """Names and contents of all files below ``folder`` that match."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob(pattern) if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def _attack(work: Work, folder: Path, stride: int, arguments: list[str]) -> dict[str, Any]:
    status, expected = _run(work, folder / "whole", 0, arguments)
    assert status == 0, expected
    n, points = 1, 0
    differ: list[int] = []
    while True:
        place = folder / f"killed-{n}"
        status, _ = _run(work, place, n, arguments)
        if status == 0:
            return {"points": points, "differ": differ}
        assert status == -signal.SIGKILL
        points += 1
        if _run(work, place, 0, arguments) != (0, expected):
            differ.append(n)
        print(f"killed at touch {n}, of {points} so far {len(differ)} differ", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)
        n += stride


def _run(work: Work, folder: Path, dies: int, arguments: list[str]) -> tuple[int, str]:
    """Exit status (negative: the signal) and result of the work, which dies at a touch; 0: lives"""
    folder.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            if dies:
                _die_at(dies, folder)
            result = work(folder, *arguments)
            os.write(writing, result.encode())
            os._exit(0)
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
            os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        result = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), result


def _die_at(number: int, folder: Path) -> None:
    inside, left = str(folder), number

    def hook(event: str, found: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in TOUCHES or not any(inside in str(value) for value in found[:2]):
            return
        if event == "open" and isinstance(found[1], str) and set(found[1]) <= set("rbt"):
            return  # nothing is written or synced through it
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _name, _folder, _stride, *_arguments = sys.argv[1:]
    _module, _, _function = _name.partition(":")
    for _import in IMPORTS:
        importlib.import_module(_import)
    _work = getattr(importlib.import_module(_module), _function)
    print(json.dumps(_attack(_work, Path(_folder), int(_stride), _arguments)))
