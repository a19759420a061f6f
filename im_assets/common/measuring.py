"""What a step costs: seconds, memory, tokens, and what caches saved, as metadata of its asset; and
how far its loops are, in its log.

Numbers under the same names for every asset, which the UI plots over time. Metadata is no content:
no data version depends on it. Of a step that makes several partitions each carries the step's.
"""

import functools
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import dagster as dg
import psutil
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction

from im_assets.common.progress import Progress
from im_assets.common.tracking import listening
from im_resources.usage import Usage, counting

SECONDS = "step seconds"
MEMORY = "step peak memory (MiB)"
GPU_MEMORY = "step peak GPU memory (MiB)"
TOKENS = "step tokens"
RATE = "step tokens/s"
COMPUTED = "step results computed"
FOUND = "step results found in caches"
SAVED = "step seconds saved by caches"
NODES, GROUPS = "step nodes", "step groups"
RETRIED = "step groups sent again"
EVERY = 0.2  # seconds between two looks at the memory
_MARK = "_measured"


def measured(assets: Sequence[dg.AssetsDefinition]) -> Sequence[dg.AssetsDefinition]:
    """The assets, whose functions report what they cost, and how far they are. Repeatable.

    There is no public way to put something around the function of an asset that is defined
    already: hooks cannot add metadata, and do not fire under automation; an IO manager sees neither
    the start nor an asset without a value. So the function of the op is replaced.
    """
    for asset in assets:
        op = asset.op
        function = op.compute_fn
        if not isinstance(function, DecoratedOpFunction) or hasattr(function.decorated_fn, _MARK):
            continue
        op._compute_fn = DecoratedOpFunction(_measuring(function.decorated_fn))
    return assets


def _measuring(function: Callable[..., Any]) -> Callable[..., Any]:
    def report(measure: "Measure") -> None:
        # Called as a plain function, outside of a step, there is no asset to tell of.
        with suppress(dg.DagsterInvariantViolationError):
            dg.AssetExecutionContext.get().add_asset_metadata(measure.metadata())

    @functools.wraps(function)
    def returning(*args: Any, **kwargs: Any) -> Any:
        with Measure() as measure, _telling():
            result = function(*args, **kwargs)
        report(measure)
        return result

    @functools.wraps(function)
    def yielding(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with Measure() as measure, _telling():
            for result in function(*args, **kwargs):
                # Dagster takes the metadata of an output when it is yielded.
                if isinstance(result, dg.Output | dg.MaterializeResult):
                    report(measure)
                yield result

    wrapped = yielding if inspect.isgeneratorfunction(function) else returning
    setattr(wrapped, _MARK, True)
    return wrapped


def _telling() -> AbstractContextManager[None]:
    """What the loops of this step tell, onto the terminal and into its log."""
    try:
        context = dg.AssetExecutionContext.get()
    except dg.DagsterInvariantViolationError:  # a plain function, outside of a step
        return nullcontext()
    return listening(lambda label, total, unit: Progress(context, label, total, unit).advance)


class Measure:
    """Seconds, memory and counted work of a block."""

    def __init__(self) -> None:
        self.usage, self.seconds = Usage(), 0.0
        self._process, self._done = psutil.Process(), threading.Event()
        self._peak = 0

    def __enter__(self) -> "Measure":
        self._start = time.monotonic()
        self._counting = counting()
        self.usage = self._counting.__enter__()
        if cuda := _cuda():
            for device in range(cuda.device_count()):
                cuda.reset_peak_memory_stats(device)
        self._look()
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="memory")
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        self._look()
        self._counting.__exit__(None, None, None)
        self.seconds = time.monotonic() - self._start

    def metadata(self) -> dict[str, float | int]:
        """The numbers under their names; tokens and caches only of a step that has any.

        The memory is that of the whole process, with what earlier steps of the run left in it (a
        loaded base model). It is looked at five times a second: the system's own peak is that of
        the process since its start, which would be told of every later step too.
        """
        self._look()
        seconds = self.seconds or time.monotonic() - self._start
        numbers: dict[str, float | int] = {
            SECONDS: round(seconds, 3),
            MEMORY: round(self._peak / 2**20, 1),
        }
        if (cuda := _cuda()) is not None:
            peaks = map(cuda.max_memory_allocated, range(cuda.device_count()))
            numbers[GPU_MEMORY] = round(max(peaks) / 2**20, 1)
        if self.usage.any:
            numbers |= {
                TOKENS: self.usage.tokens,
                COMPUTED: self.usage.computed,
                FOUND: self.usage.found,
                SAVED: round(self.usage.seconds_saved, 3),
            }
        if self.usage.nodes or self.usage.retried:
            numbers |= {GROUPS: self.usage.groups, RETRIED: self.usage.retried}
            numbers[NODES] = len(self.usage.nodes)
        if self.usage.tokens:
            numbers[RATE] = round(self.usage.tokens / max(seconds, 1e-9), 1)
        return numbers

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)


def _cuda() -> Any:
    """``torch.cuda`` where a step has used a GPU; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.cuda if torch is not None and used else None
