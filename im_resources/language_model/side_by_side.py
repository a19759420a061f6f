"""Work on several adapters at once over one base in memory.

On a CPU, w threads that each use one core train 1.4 times as fast as one that uses w cores, since
small matrices do not fill two. Each worker keeps its one core however many workers run, so a result
does not depend on how many seeds happen to run beside it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from im_resources.gpu import GpuResource

Item = TypeVar("Item")
Result = TypeVar("Result")

_HERE = threading.local()
# Set: all work of this process is to end. A node of a cluster is told so by others.
NOBODY_WAITS = threading.Event()


class Stopped(RuntimeError):
    """Raised in a worker's thread: the run was told to end, and nobody waits for its result."""


def stop_point() -> None:
    """A place at which work may end early; long work passes one every second or so.

    Threads get no signals: without it, Ctrl-C would wait for finetunes that take hours.

    Raises Stopped when the run that this thread works for was told to end.
    """
    stop = getattr(_HERE, "stop", None)
    if NOBODY_WAITS.is_set() or (stop is not None and stop.is_set()):
        raise Stopped("the run was told to end")


def run_side_by_side(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    gpu: "GpuResource",
    together: int | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, work(item)) as they finish, ``gpu.workers`` at a time.

    Args:
        together: so many at a time instead, whose heavy part is done together (``together.py``) and
            decides itself how many cores it uses.

    The first exception is raised once the work under way has finished; what waits is not started.
    An interrupt (Ctrl-C, a run that is cancelled) ends the work under way at its next stop_point.
    """
    import torch  # here, so that the code location loads without it

    on_cpu = gpu.torch_device().type == "cpu"
    threads, stop = torch.get_num_threads(), threading.Event()
    failed: BaseException | None = None

    def one_core() -> None:
        _HERE.stop = stop
        if on_cpu and together is None:
            torch.set_num_threads(1)

    with ThreadPoolExecutor(together or gpu.workers, initializer=one_core) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                failed = future.exception()
                yield futures[future], future.result()
        except BaseException as error:
            if error is not failed:  # an interrupt, or nobody wants the rest
                stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)
