"""Where a study's wall time goes that is neither model compute nor start-up.

``python -m benchmarks.overhead [--profile demo] [--home DIR]``

The study is run twice, by ``python -m im_assets.run``: first from nothing, then again, when there
is nothing left to compute. Inside the process a thread looks fifty times a second at what every
other one does. A moment is of the model when any of them is in torch or in the library that calls
it; of the start when modules are imported, definitions built or models loaded; else of the place
that the platform's code is at. What waits is passed over.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from im_resources.study import PROJECT_ROOT

EVERY = 0.02
SHOWN = 12  # places
MODEL, START = "model compute", "start-up"
_MODELS = ("/torch/", "/transformers/", "/peft/", "/sentence_transformers/", "/tokenizers/")
_STARTS = {"_find_and_load", "load_base", "load_embedder", "load_tokenizer", "load_model"}
_WAITS = {
    ("threading.py", "wait"),
    ("threading.py", "_wait_for_tstate_lock"),
    ("selectors.py", "select"),
    ("thread.py", "_worker"),
}
Stack = list[tuple[str, str]]  # (file, function), innermost first


def main() -> None:
    """Run the study twice; print both times and where they went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--home", type=Path, help="folder to work in; default: a temporary one")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside is not None:
        sys.exit(_inside(arguments.inside))
    home = (arguments.home or Path(tempfile.mkdtemp(prefix="overhead-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "IM_PROFILE": arguments.profile,
        "IM_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
    }
    for what in ("first run", "second run"):
        out = home / "samples.json"
        command = [sys.executable, "-m", "benchmarks.overhead", "--inside", str(out)]
        start, load = time.perf_counter(), os.getloadavg()[0]
        subprocess.run(
            command, check=True, env=environment, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - start
        _tell(what, seconds, Counter(json.loads(out.read_text(encoding="utf-8"))), load)


def _tell(what: str, seconds: float, samples: Counter[str], load: float) -> None:
    total = samples.total()
    rest = total - samples[MODEL] - samples[START]
    print(
        f"{what}: {seconds:.1f} s (load {load:.1f} before), of it {samples[MODEL] / total:.0%} "
        f"model compute, {samples[START] / total:.0%} start-up, {rest / total:.1%} neither "
        f"({rest / total * seconds:.1f} s)",
        flush=True,
    )
    for place, number in samples.most_common(SHOWN + 2):
        if place not in (MODEL, START):
            print(f"  {number / total * seconds:6.1f} s  {place}", flush=True)


def _inside(out: Path) -> int:
    """Run the study in this process, and write how often it was where."""
    samples: Counter[str] = Counter()
    done, mine = threading.Event(), threading.get_ident()

    def look() -> None:
        own = threading.get_ident()
        while not done.wait(EVERY):
            # No frame is kept: what it holds (a cursor, a lock) would live on with it.
            stacks = {key: _stack(f) for key, f in sys._current_frames().items() if key != own}
            samples[_place(stacks, mine)] += 1

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    sys.argv = sys.argv[:1]
    try:
        from im_assets.run import main as run

        return run()
    finally:
        done.set()
        watcher.join()
        out.write_text(json.dumps(samples), encoding="utf-8")


def _place(stacks: dict[int, Stack], main_thread: int) -> str:
    """What the process does: of the model, of the start, or where the platform's own code is."""
    working = [s for s in stacks.values() if (Path(s[0][0]).name, s[0][1]) not in _WAITS]
    modelling = [s for s in working if any(part in file for file, _ in s for part in _MODELS)]
    if modelling:
        return START if all(map(_starts, modelling)) else MODEL
    stack = stacks[main_thread]
    if _starts(stack):
        return START
    for file, name in stack:
        if file.startswith(str(PROJECT_ROOT / "im_")):
            return f"{Path(file).relative_to(PROJECT_ROOT)}: {name}"
    return "elsewhere"


def _starts(stack: Stack) -> bool:
    return any(name in _STARTS or file.endswith("im_assets/definitions.py") for file, name in stack)


def _stack(frame: FrameType | None) -> Stack:
    """(file, function), innermost first."""
    found = []
    while frame is not None:
        found.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    return found


if __name__ == "__main__":
    main()
