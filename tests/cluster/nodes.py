"""A Ray cluster as processes of this machine: a head, and workers with folders of their own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from im_resources.study import PROJECT_ROOT
from tests.servers import PATIENCE, alone, free_ports

# Ray gives a node half a minute to begin, too little on a machine that does much else; the node
# ends with this, and whoever looks after it (Kubernetes, a person) starts it again.
TOO_SLOW = "The current node timed out during startup"
STARTS = 5
STORE = "--object-store-memory=80000000"  # bytes; Ray asks for 75 MB at least
LOST_AFTER = "3"  # seconds until a client that vanished is given up, and its tasks with it
QUICK = {
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": LOST_AFTER,
    "RAY_USAGE_STATS_ENABLED": "0",
    # Said, since a token in the home folder would be asked for otherwise.
    "RAY_AUTH_MODE": "disabled",
    # As deploy/ray/node does.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    # The server that a client gets of its own takes its time on a machine that does much else.
    "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "60",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "RAY_ADDRESS": "",
    "RAY_DEDUP_LOGS": "0",
    # A node that is killed is known to be dead within two seconds.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
    "RAY_health_check_initial_delay_ms": "1000",
    # The memory of this machine is of others too.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_register_timeout_seconds": "120",
    "RAY_enable_metrics_collection": "0",
}


class RayNode:
    """One node: ``ray start --block`` and all that it starts, below a folder."""

    def __init__(
        self,
        name: str,
        folder: Path,
        cpus: float,
        environment: Mapping[str, str],
        head: "RayNode | None" = None,
        options: Sequence[str] = (),
    ) -> None:
        self.name, self.folder = name, folder
        (folder / "home").mkdir(parents=True)
        ports = free_ports(8)
        self.port, self.client = (ports[0], ports[1]) if head is None else (0, 0)
        named = ["node-manager-port", "object-manager-port", "runtime-env-agent-port",
                 "dashboard-agent-grpc-port", "dashboard-agent-listen-port",
                 "metrics-export-port"]  # fmt: skip
        command = ["start", "--block", "--node-ip-address=127.0.0.1", f"--node-name={name}",
                   f"--num-cpus={cpus:g}", STORE, f"--temp-dir={folder / 'r'}",
                   "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats",
                   "--num-gpus=0", f"--memory={4 << 30}",
                   *(f"--{n}={p}" for n, p in zip(named, ports[2:], strict=True)),
                   *options]  # fmt: skip
        if head is None:
            command += ["--head", f"--port={self.port}", "--include-dashboard=false",
                        f"--ray-client-server-port={self.client}"]  # fmt: skip
        else:
            command += [f"--address=127.0.0.1:{head.port}"]
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).parent / "ray", *command],
                cwd=folder / "home",
                env={**_environment(), "IM_HOME": str(folder / "home"), **environment},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """All of its processes at once, as when the machine loses its power."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_raylet(self) -> None:
        """The process by which the cluster knows the node; Ray ends its workers with it."""
        [raylet] = [p for p in self._all() if p.name() == "raylet"]
        raylet.send_signal(signal.SIGKILL)

    def workers(self) -> list[psutil.Process]:
        """The processes in which the node does what it is asked to."""
        return [p for p in self._all() if p.name().startswith("ray::")]

    def _all(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.process.pid)
            return [*top.children(recursive=True), top]
        return []


class RayCluster:
    """A head without cores, so that it does no group, and workers."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.nodes: list[RayNode] = []
        self.head = self.start_head()

    @property
    def address(self) -> str:
        return f"ray://127.0.0.1:{self.head.client}"

    def start_head(self) -> RayNode:
        """A head, in place of one that is gone."""
        self.head = self._started(
            "--block", lambda folder: RayNode("head", folder, 0, self.environment), "head"
        )
        return self.head

    def add(
        self, name: str, cpus: float = 1, options: Sequence[str] = (), **environment: str
    ) -> RayNode:
        """A worker, once it has joined; ``options`` and ``environment`` of its own."""
        own = {**self.environment, **environment}
        return self._started(
            "Ray runtime started",
            lambda folder: RayNode(name, folder, cpus, own, self.head, options),
            name,
        )

    def close(self) -> None:
        for node in self.nodes:
            node.kill()

    def _started(self, word: str, make: Callable[[Path], RayNode], name: str) -> RayNode:
        """A node that has printed this word, in a folder of its own."""
        for left in reversed(range(STARTS)):
            node = make(self.folder / f"{name}-{len(self.nodes)}.{left}")
            deadline = time.monotonic() + PATIENCE
            while word not in node.log.read_text(errors="replace"):
                if node.process.poll() is not None or time.monotonic() > deadline:
                    node.kill()
                    said = node.log.read_text(errors="replace")
                    assert left, said
                    assert TOO_SLOW in said, said
                    break
                time.sleep(0.1)
            else:
                self.nodes.append(node)
                return node
        raise AssertionError(name)


@contextmanager
def ray_cluster(
    workers: int = 2, cpus: float = 1, environment: Mapping[str, str] | None = None
) -> Iterator[RayCluster]:
    """A head and workers ``node-1`` …, each with its own folders, which are gone afterwards.

    Args:
        environment: of all nodes, beside what they need.
    """
    from im_resources.cluster.connection import disconnect

    # Sockets below it have long names, which the system cuts at 107 letters.
    folder = Path(tempfile.mkdtemp(prefix="im-ray-", dir="/tmp"))
    cluster = None
    with alone(), _quick():
        try:
            cluster = RayCluster(folder, environment or {})
            for number in range(1, workers + 1):
                cluster.add(f"node-{number}", cpus)
            yield cluster
        finally:
            disconnect()
            if cluster is not None:
                cluster.close()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quick() -> Iterator[None]:
    """The client's patience, which is this process's."""
    kept = {name: os.environ.get(name) for name in QUICK}
    os.environ.update(QUICK)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _environment() -> dict[str, str]:
    """What a node has of this process's environment: no folder, and no secret."""
    kept = ("PATH", "HOME", "VIRTUAL_ENV", "LANG", "HF_HUB_OFFLINE", "IM_MODEL_CACHE", "TMPDIR")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    cache = os.environ.get("IM_MODEL_CACHE")
    return {**found, **QUICK, "PYTHONPATH": str(PROJECT_ROOT), "TOKENIZERS_PARALLELISM": "false",
            **({"IM_MODEL_CACHE": cache} if cache else {})}  # fmt: skip
