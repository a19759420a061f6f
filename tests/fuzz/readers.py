"""``python -m tests.fuzz.readers --inputs 100000``: damaged files and profiles, in two processes.

Each input has a time limit (an alarm) and each process a memory limit; a crash of the process, a
hang, an exception that is no clear error, and a row lost are faults, told by the input's number:
``--only 4711`` tries that one again. Ends with 1 when there are faults.
"""

import argparse
import faulthandler
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.fuzz.inputs import ProfileInput, input_of
from tests.fuzz.judging import examine

SECONDS = 10  # of one input; most take a millisecond, but other work may have the cores
MEMORY = 3_000_000_000  # bytes of address space of a process, most of them Arrow's pools
SHOWN = 10


class _TooLong(BaseException):
    """No Exception, so that no reader can mistake it for its own."""


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise _TooLong


def attempt(number: int, folder: Path) -> tuple[str, str]:
    """(kind of input and verdict, what went wrong or '')."""
    given = input_of(number)
    kind = "profile" if isinstance(given, ProfileInput) else given.name.removeprefix("rows.")
    signal.alarm(SECONDS)
    try:
        return f"{kind} {examine(given, folder)}", ""
    except _TooLong:
        return f"{kind} FAULT", f"longer than {SECONDS} s"
    except Exception:
        return f"{kind} FAULT", traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)


def _worker(numbers: range, results: Any, at: Any) -> None:
    faulthandler.enable()
    signal.signal(signal.SIGALRM, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="im-fuzz-") as folder:
        for number in numbers:
            at.value = number
            verdict, fault = attempt(number, Path(folder))
            counts[verdict] += 1
            if fault:
                results.put((number, fault))
    results.put(counts)


def run(first: int, inputs: int, processes: int) -> tuple[Counter[str], dict[int, str]]:
    """Try inputs ``first`` and following: (how many of each verdict, faults by input)."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    last = first + inputs
    places = [context.Value("q", -1) for _ in range(processes)]
    workers = [
        context.Process(target=_worker, args=(range(first + i, last, processes), results, place))
        for i, place in enumerate(places)
    ]
    for worker in workers:
        worker.start()
    counts: Counter[str] = Counter()
    faults: dict[int, str] = {}
    waiting = len(workers)
    while waiting:
        while results.empty() and any(worker.is_alive() for worker in workers):
            time.sleep(0.2)
        if results.empty():
            break
        result = results.get()
        if isinstance(result, Counter):
            counts += result
            waiting -= 1
        else:
            faults[result[0]] = result[1]
    for worker, place in zip(workers, places, strict=True):
        worker.join()
        if worker.exitcode:
            faults[place.value] = f"the process ended with {worker.exitcode}"
    return counts, faults


def main() -> int:
    """Try the inputs and print what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.readers", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int, help="try this input alone, here")
    options = parser.parse_args()
    if options.only is not None:
        signal.signal(signal.SIGALRM, _stop)
        with tempfile.TemporaryDirectory() as folder:
            print(input_of(options.only), *attempt(options.only, Path(folder)), sep="\n")
        return 0
    start = time.monotonic()
    counts, faults = run(options.first, options.inputs, options.processes)
    for verdict, count in sorted(counts.items()):
        print(f"{count:8} {verdict}")
    print(
        f"{sum(counts.values()):8} inputs, {len(faults)} faults, {time.monotonic() - start:.0f} s"
    )
    for number, fault in sorted(faults.items())[:SHOWN]:
        print(f"\ninput {number}: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
