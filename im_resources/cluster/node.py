"""What a node does with a group that was sent to it.

The node's own process: its workplace is made from the study and the deployment that came along, and
from its own environment, where all secrets are. It is kept, so that the next group of the same
study finds the base model loaded.
"""

import atexit
import pickle
import shutil
import tempfile
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from im_resources.catalog_locks import catalog_lock
from im_resources.cluster.errand import Common, Errand, dumped
from im_resources.cluster.errors import NodeFault, of_the_node
from im_resources.deployment.making import adapters_of, warehouse_of
from im_resources.deployment.schema import Deployment, LakeWarehouse, RayExecutor
from im_resources.gpu import GpuResource, restrict_cores
from im_resources.language_model.side_by_side import NOBODY_WAITS, Stopped
from im_resources.plugins import load_plugins, with_plugin_files
from im_resources.remote.models import fetch_models
from im_resources.study import Study
from im_resources.usage import Usage, counting
from im_resources.workplace import Claim, Workplace

EVERY = 1.0  # seconds between two messages about steps
PATIENCE = 0.2  # seconds until a full board is tried again
_KEPT: dict[tuple[Any, ...], Workplace] = {}


class NobodyWaits(RuntimeError):
    """The run that sent the group is over: it was canceled, or its process is gone."""


def work_on(errand: bytes, common: bytes, board: Any, run: str) -> tuple[str, Any]:
    """Do a group, and tell the board of each item as it is finished.

    Returns:
        ("done", None); or ("failed", the error as bytes, whether it is the node's fault and not the
        work's).
    """
    group: Errand = pickle.loads(errand)
    teller = Teller(board, run, group)
    NOBODY_WAITS.clear()
    try:
        with teller.telling():
            teller.send([("begun", group.name, node_id())])
            shared: Common = pickle.loads(common)
            here = replace(_workplace(shared), on_step=teller.step)
            for key, result in shared.task(group.items, here, **shared.options):
                teller.result(key, result)
    except (NobodyWaits, Stopped):
        return ("done", None)
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        told = _told(error)
        return ("failed", (dumped(error, lambda _: told), of_the_node(error)))
    return ("done", None)


def node_id() -> str:
    """The node's id in the cluster."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _told(error: BaseException) -> RuntimeError:
    return RuntimeError(f"{type(error).__name__}: {error}")


def _workplace(common: Common) -> Workplace:
    key = (common.study, common.deployment, tuple(common.plugins.items()))
    if key not in _KEPT:
        study = fetch_models(Study.model_validate_json(common.study))
        deployment = Deployment.model_validate_json(common.deployment)
        executor = deployment.executor
        assert isinstance(executor, RayExecutor)
        if common.plugins:
            folder = Path(tempfile.mkdtemp(prefix="im-plugins-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            study = with_plugin_files(study, common.plugins, folder)
        load_plugins(study)
        adapters, warehouse = adapters_of(study, deployment), warehouse_of(study, deployment)
        _KEPT.clear()  # one at a time
        _KEPT[key] = Workplace(
            study, _gpu(executor), adapters, warehouse, claim=_claims(study, deployment)
        )
    here = _KEPT[key]
    if common.base is not None and (mine := here.gpu.base_fingerprint(here.study)) != common.base:
        raise NodeFault(
            f"models.base has other weights on this node ({mine}) than where the work is sent from "
            f"({common.base}); give all machines the same files"
        )
    return here


def _gpu(executor: RayExecutor) -> GpuResource:
    """The device that Ray gave this process, and no more than its share of it."""
    import torch

    cores = max(1, int(executor.cpus))
    restrict_cores(cores)
    torch.set_num_threads(cores)
    if executor.device == "cpu":
        return GpuResource(device="cpu")
    share = min(1.0, executor.gpus or 1.0)
    return GpuResource(device="cuda", memory_fraction=0.95 * share)


def _claims(study: Study, deployment: Deployment) -> Claim | None:
    """Claims by the catalog, which all nodes see; none where tables are in a file."""
    warehouse = deployment.warehouse
    if not isinstance(warehouse, LakeWarehouse):
        return None

    def claim(name: str, wait: Any) -> Any:
        told = None if wait is None else lambda _holder: wait()
        return catalog_lock(warehouse.catalog, f"{study.name}: {name}", told)

    return claim


class Teller:
    """Tells the board: steps now and then, results at once."""

    def __init__(self, board: Any, run: str, group: Errand) -> None:
        self.board, self.run, self.group = board, run, group
        self.usage = Usage()
        self._sent = Usage()
        self._steps: dict[str, tuple[int, int, int]] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._closed = False
        # While the thread of a task waits for Ray, its cores are given to another task
        # (ray-core/tasks/nested-tasks.html#yielding-resources-while-blocked in Ray's docs).
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="teller")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Count what is done, and tell of steps every second, until the end of the block."""
        watcher = threading.Thread(target=self._watch, daemon=True, name="teller")
        with counting() as self.usage:
            watcher.start()
            try:
                yield
                self.send(self._pending())
            finally:
                self._over.set()
                watcher.join()
                self._sender.shutdown(wait=False, cancel_futures=True)

    def step(self, key: str, step: int, steps: int, tokens: int) -> None:
        """A step of an item is done. Raises NobodyWaits when that is of no use any more."""
        if self._closed:
            raise NobodyWaits
        with self._lock:
            before = self._steps.get(key, (0, 0, 0))[2]
            self._steps[key] = (step, steps, before + tokens)

    def result(self, key: str, result: Any) -> None:
        """An item is finished."""
        content = dumped(result, lambda e: _told(result if isinstance(result, Exception) else e))
        self.send([*self._pending(), ("result", self.group.name, key, content)])

    def send(self, messages: list[Any]) -> None:
        """Put messages on the board; waits where it is full. Raises NobodyWaits."""
        if messages:
            self._sender.submit(self._send, messages).result()

    def _send(self, messages: list[Any]) -> None:
        import ray

        while not self._closed:
            said = ray.get(self.board.put.remote(self.run, messages))
            if said == "kept":
                return
            if said == "closed":
                self._closed = True
                NOBODY_WAITS.set()
            else:
                self._over.wait(PATIENCE)
        if self._closed:
            raise NobodyWaits

    def _pending(self) -> list[Any]:
        with self._lock:
            steps, self._steps = self._steps, {}
            now, before = self.usage, self._sent
            used = (
                now.tokens - before.tokens,
                now.computed - before.computed,
                now.found - before.found,
                now.seconds_saved - before.seconds_saved,
            )
            self._sent = replace(now)
        messages: list[Any] = [("step", key, *step) for key, step in steps.items()]
        return [*messages, ("used", *used)] if any(used) else messages

    def _watch(self) -> None:
        last = monotonic()
        while not self._over.wait(EVERY):
            try:
                # With nothing to tell, too: so it learns that nobody waits.
                self._sender.submit(self._send, self._pending()).result()
            except NobodyWaits:
                return
            except Exception:
                # The next one may arrive; of a board that is gone the group itself learns.
                if monotonic() - last > 60:
                    return
                continue
            last = monotonic()
