"""The way to a Ray cluster: its client server, reached once for all steps of a process.

Ray's client, and not a driver on one of the nodes: a head that dies is an error here, where a
driver's process would be ended by Ray (``ray/_private/worker.py``). When this process dies, the
client server ends its tasks, after ``RAY_CLIENT_RECONNECT_GRACE_PERIOD`` (30 s); so long a lost
connection is waited for, too.
"""

import math
import pickle
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from im_resources.cluster.errors import ClusterError, ClusterGone
from im_resources.cluster.remote import functions
from im_resources.cluster.versions import versions
from im_resources.cluster.words import in_short
from im_resources.deployment.schema import RayExecutor

REACH_SECONDS = 10.0
TRIES = 3  # to connect to a head that answers
HEAD = "node:__internal_head__"
NEEDS_EXTRA = (
    "the deployment's executor is a Ray cluster, and the extra `cluster` is not installed ({}); "
    "run: pip install -e .[cluster]"
)


@dataclass(frozen=True)
class Node:
    """A node of the cluster: its id, its name in messages, and all of its resources."""

    id: str
    name: str
    resources: dict[str, float] = field(compare=False)

    def slots(self, need: dict[str, float]) -> int:
        """How many groups it has room for when it does nothing else."""
        room = [self.resources.get(kind, 0.0) / amount for kind, amount in need.items() if amount]
        return max(0, math.floor(min(room, default=0.0) + 1e-9))

    def told(self) -> str:
        """The node and what it has, in words."""
        parts = [f"{self.resources.get('CPU', 0):g} CPU"]
        if gpus := self.resources.get("GPU", 0):
            parts.append(f"{gpus:g} GPU")
        parts.append(f"{self.resources.get('memory', 0) / 2**30:.0f} GiB")
        return f"{self.name} ({', '.join(parts)})"


class Cluster:
    """An open connection. ``board`` is where nodes tell what they did."""

    def __init__(self, address: str) -> None:
        """Raises ClusterError where nobody answers, or it is another version."""
        self.address = address
        place = urlsplit(address)
        if place.scheme != "ray" or not place.hostname:
            raise ClusterError(
                f"executor.address: {address!r} is no address of Ray's client server, such as "
                "ray://head:10001"
            )
        host, port = place.hostname, place.port or 10001
        try:
            socket.create_connection((host, port), REACH_SECONDS).close()
        except OSError as error:
            raise ClusterError(
                f"nobody answers at {address} ({error}); start the cluster's head, or correct "
                "executor.address in the deployment"
            ) from error
        try:
            self.resource = _resource(host, port)
            self._connect()
            self._start()
        except ModuleNotFoundError as error:
            raise ClusterError(NEEDS_EXTRA.format(error.name)) from error
        except Exception as error:
            why = " ".join(str(error).split())
            if "version" in why.lower():
                raise ClusterError(
                    f"{address} is another version: {why}; install the same on all nodes and here"
                ) from error
            raise ClusterError(
                f"cannot work with the cluster at {address}: {why}; see the head's logs"
            ) from error

    def _connect(self) -> None:
        """A server for this client begins anew where one died at its start (a head whose gRPC
        handles forks, see ``deploy/ray/node``), or needed more than Ray's half a minute."""
        import ray

        for left in reversed(range(TRIES)):
            try:
                self.resource.connect(_log_context())
                return
            except (ConnectionError, RuntimeError) as error:
                ray.shutdown()
                if not left or "version" in str(error).lower():
                    raise

    def _start(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        board: Any
        self._work, self._look, board = functions()
        # On the head, with which all ends in any case.
        head = next((n for n in ray.nodes() if n["Alive"] and HEAD in n["Resources"]), None)
        where = {} if head is None else {"scheduling_strategy": On(head["NodeID"], soft=False)}
        self.board = ray.remote(num_cpus=0)(board).options(**where).remote()
        ray.get(self.board.open.remote("the connection itself"))

    def nodes(self) -> list[Node]:
        """The nodes that are alive, by their names."""
        import ray

        found = []
        for node in ray.nodes():
            if node["Alive"]:
                host, name = node["NodeManagerHostname"], node.get("NodeName") or ""
                shown = name if name not in ("", node["NodeManagerAddress"]) else host
                found.append(Node(node["NodeID"], shown, dict(node["Resources"])))
        return sorted(found, key=lambda node: (node.name, node.id))

    def work(self, need: dict[str, float], name: str) -> Callable[..., Any]:
        """The function that a node does a group with, as Ray calls it; ``avoid``: not there."""
        import ray

        gpus = need["GPU"]
        # A process that has used a GPU cannot change to another one: each group has a new one.
        remote: Any = ray.remote(  # type: ignore[call-overload]
            num_cpus=need["CPU"], num_gpus=gpus, memory=int(need.get("memory", 0)) or None,
            max_retries=0, max_calls=1 if gpus else 0, name=name,
        )(self._work)  # fmt: skip

        def call(*arguments: Any, avoid: str | None = None) -> Any:
            options = {"label_selector": {"ray.io/node-id": f"!{avoid}"}} if avoid else {}
            return remote.options(**options).remote(*arguments)

        return call

    def look(
        self, question: Callable[[], object] | None = None, timeout: float = 60.0
    ) -> dict[Node, dict[str, Any]]:
        """What each node says of itself (see ``remote.functions``), and by how many seconds its
        ``clock`` differs at least; of one that does not answer, why, as its versions.

        Args:
            question: its ``answer`` is given too.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        looking = ray.remote(num_cpus=0, max_retries=0)(self._look)
        nodes = self.nodes()
        told, start = None if question is None else pickle.dumps(question), time.time()
        asked = [
            looking.options(scheduling_strategy=On(n.id, soft=False)).remote(told) for n in nodes
        ]
        ray.wait(asked, num_returns=len(asked), timeout=timeout)
        end, found = time.time(), {}
        for node, ref in zip(nodes, asked, strict=True):
            try:
                said = ray.get(ref, timeout=1.0)
                found[node] = said | {"clock": max(0.0, start - said["time"], said["time"] - end)}
            except Exception as error:
                found[node] = {"versions": f"{type(error).__name__}: {in_short(error)}"}
        return found

    @property
    def expected(self) -> dict[str, str]:
        """The versions that a node has to have."""
        return versions()

    def close(self) -> None:
        """End the connection, and with it all that was begun over it."""
        import ray

        try:
            ray.shutdown()
        except Exception as error:  # a connection that is gone is closed
            raise ClusterGone(f"the cluster at {self.address} is gone: {error}") from error


_OPEN: list[Cluster] = []
_LOCK = threading.Lock()


def connected(executor: RayExecutor) -> Cluster:
    """The connection of this process, opened on first use. Raises ClusterError."""
    with _LOCK:
        if _OPEN and _OPEN[0].address != executor.address:
            _disconnect()
        if not _OPEN:
            _OPEN.append(Cluster(executor.address))
        return _OPEN[0]


def disconnect() -> None:
    """Close this process's connection, if one is open; the next work opens another."""
    with _LOCK:
        _disconnect()


def _disconnect() -> None:
    if _OPEN:
        with suppress(ClusterGone):
            _OPEN.pop().close()


def need_of(executor: RayExecutor) -> dict[str, float]:
    """The resources of a group, as Ray names them."""
    memory = executor.memory_gib * 2**30
    return {"CPU": executor.cpus, "GPU": executor.gpus} | ({"memory": memory} if memory else {})


def _resource(host: str, port: int) -> Any:
    """dagster-ray's resource of a cluster that is there already."""
    from dagster_ray import Lifecycle, RayResource

    class ExistingCluster(RayResource):
        @property
        def host(self) -> str:
            return host

        @property
        def name(self) -> str:
            return "the deployment's Ray cluster"

        def connect(self, context: Any) -> Any:  # type: ignore[override]
            # As the method that this replaces does, without the options of Ray Data, which is
            # not used, and which would have to be on every node.
            import ray

            self._context = ray.init(self.ray_address, **self.ray_init_options)
            return self._context

    return ExistingCluster(
        redis_port=port,
        lifecycle=Lifecycle(create=False, cleanup="never"),
        # What nodes print stays in their logs.
        ray_init_options={"log_to_driver": False},
    )


def _log_context() -> Any:
    import dagster as dg

    return dg.build_init_resource_context()
