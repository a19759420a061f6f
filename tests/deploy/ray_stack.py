"""The pods of ``deploy/ray`` as processes of this machine, without containers or Kubernetes.

Commands, arguments, environments, Secrets' names and probes are read from the manifests; only
addresses, ports and folders are this machine's, and a group needs no GPU. Nothing is shared between
the nodes but the catalog and the bucket.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from im_resources.study import PROJECT_ROOT
from tests import servers
from tests.cluster.nodes import STARTS, TOO_SLOW
from tests.deploy.manifests import RAY, Pod, cluster, pods, settings
from tests.deploy.stack import PASSWORD, USER, Served, SignedIn, basic
from tests.servers import alone, free_ports, object_store, postgres

PATIENCE = 300  # seconds, on a machine that does much else
TOKEN = "the tests' own token, of 32 letters and more"
HASH = ("caddy", "hash-password", "--algorithm", "bcrypt")
GRPC = ("-m", "dagster", "api", "grpc-health-check", "-h", "127.0.0.1", "-p")


def missing() -> str | None:
    """What keeps the pods' processes from being started here; None when nothing does."""
    if shutil.which("caddy") is None:
        return "Caddy is not installed (Debian: caddy)"
    return servers.missing()


class RayStack(Served):
    """The running processes below ``folder``; `ray_deployment` starts and ends them."""

    patience = PATIENCE

    def __init__(
        self, folder: Path, profile: Path, catalog: servers.Postgres, bucket: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.bucket = bucket
        # Of Ray's sockets, whose names the system cuts at 107 letters.
        self.short = Path(tempfile.mkdtemp(prefix="im-ray-", dir="/tmp"))
        names = ("code", "webserver", "http", "gcs", "client", "dashboard")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.ports["postgres"] = catalog.port
        self.site = f"http://localhost:{self.ports['http']}"
        self.running: dict[str, psutil.Popen] = {}
        self.agents: dict[str, int] = {}  # of Ray's nodes: the port of their health
        # What a user writes into settings.yaml.
        self.own = {
            "IM_PROFILE": str(profile),
            "IM_DEPLOYMENT": str(self._deployment()),
            "AWS_ENDPOINT_URL": bucket["AWS_ENDPOINT_URL"],
            "DAGSTER_HOME": str(RAY / "dagster"),
            "IM_CODE_HOST": "127.0.0.1",
            "IM_SITE": "http://localhost",
            "IM_ALLOWED_ORIGINS": self.site,
        }
        self.secrets = {
            ("postgres", "PGPASSWORD"): servers.PASSWORD,
            ("bucket", "AWS_ACCESS_KEY_ID"): bucket["AWS_ACCESS_KEY_ID"],
            ("bucket", "AWS_SECRET_ACCESS_KEY"): bucket["AWS_SECRET_ACCESS_KEY"],
            ("ray-token", "auth_token"): TOKEN,
        }

    def _deployment(self) -> Path:
        """deployments/ray.yaml for machines without a GPU, and with less memory."""
        source = PROJECT_ROOT / "deployments" / "ray.yaml"
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
        content["executor"] |= {
            "device": "cpu", "gpus": 0, "cpus": 1, "memory_gib": 0.25, "group_size": 2,
        }  # fmt: skip
        path = self.folder / "ray.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    # -- what the manifests say, at this machine's addresses -----------------------------------

    def environment(self, name: str) -> dict[str, str]:
        """The container's variables, and none that this process has for its own study."""
        container = _pod(name).container
        found = settings() | {"AWS_ENDPOINT_URL": ""} if container.get("envFrom") else {}
        for variable in container.get("env", ()):
            found[variable["name"]] = self._value(variable)
        here = {k: self.own.get(k) or self._here(v, name) for k, v in found.items()}
        return _inherited() | here | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT_ROOT),
            "IM_WEBSERVER": f"127.0.0.1:{self.ports['webserver']}",
            "IM_HTTP_PORT": str(self.ports["http"]),
            "IM_USERS": str(self.folder / "users"),
            **_RAY,
        }  # fmt: skip

    def _value(self, variable: Mapping[str, Any]) -> str:
        source = variable.get("valueFrom", {})
        if secret := source.get("secretKeyRef"):
            return self.secrets[secret["name"], secret["key"]]
        if setting := source.get("configMapKeyRef"):
            return settings()[setting["key"]]
        if resource := source.get("resourceFieldRef"):
            # What the nodes of this machine have; the names come from the manifest.
            return {"limits.cpu": "1", "limits.memory": str(2**30)}[resource["resource"]]
        return str(variable["value"])

    def _here(self, text: str, name: str) -> str:
        for place in (mount["mountPath"] for mount in _pod(name).container["volumeMounts"]):
            if text == place or text.startswith(f"{place}/"):
                return f"{self.folder}/volumes/{name}{text}"
        ports = self.ports
        here = {
            "/app/": f"{PROJECT_ROOT}/", "0.0.0.0": "127.0.0.1", "3000": str(ports["webserver"]),
            "4000": str(ports["code"]), "ray-head-svc:10001": f"127.0.0.1:{ports['client']}",
            "postgres:5432": f"127.0.0.1:{ports['postgres']}",
        }  # fmt: skip
        # All at once, so that a port is not taken for another one.
        inside = "|".join(map(re.escape, here))
        return re.sub(rf"(?<!\w)({inside})(?!\d)", lambda m: here[m[1]], text)

    def command(self, name: str) -> list[str]:
        """What the container runs: our image's entrypoint, unless the manifest names another."""
        if name == "proxy":  # of another image, whose own command it is
            config = ["--config", str(PROJECT_ROOT / "deploy/compose/Caddyfile")]
            return ["caddy", "run", *config, "--adapter", "caddyfile"]
        container = _pod(name).container
        entrypoint = container.get("command", ["/app/deploy/compose/entrypoint"])
        values = self.environment(name)
        words = [re.sub(r"\$\((\w+)\)", lambda m: values[m[1]], w) for w in container["args"]]
        words = [self._here(word, name) for word in [*entrypoint, *words]]
        return words + self._ray_options(name) if name.startswith("ray-") else words

    def _ray_options(self, name: str) -> list[str]:
        """Several nodes on one machine: each has ports of its own. A later option counts."""
        names = ["object-manager-port", "node-manager-port", "dashboard-agent-grpc-port",
                 "runtime-env-agent-port", "metrics-export-port",
                 "dashboard-agent-listen-port"]  # fmt: skip
        own = free_ports(len(names))
        self.agents[name] = own[-1]
        options = [f"--{n}={port}" for n, port in zip(names, own, strict=True)]
        options += ["--min-worker-port=0", "--max-worker-port=0", f"--node-name={name}",
                    "--node-ip-address=127.0.0.1", "--object-store-memory=80000000",
                    f"--temp-dir={self.short / name}"]  # fmt: skip
        if name != "ray-head":
            return [*options, f"--address=127.0.0.1:{self.ports['gcs']}"]
        ports = self.ports
        return [*options, f"--port={ports['gcs']}", f"--ray-client-server-port={ports['client']}",
                f"--dashboard-port={ports['dashboard']}"]  # fmt: skip

    # -- starting and ending ----------------------------------------------------------------

    def prepare(self) -> None:
        """Who may sign in, and the bucket that the manifests name."""
        done = subprocess.run(
            HASH, input=f"{PASSWORD}\n", check=True, capture_output=True, text=True
        )
        (self.folder / "users").write_text(f"{USER} {done.stdout.strip()}\n", encoding="utf-8")

    def start(self, *names: str) -> None:
        """Start pods, side by side, and wait until their probes pass."""
        for name in names:
            self._start(name)
        for name in names:
            self.wait(partial(self.healthy, name), f"{name} to be healthy")

    def _start(self, name: str) -> None:
        for mount in _pod(name).container["volumeMounts"]:
            place = Path(self._here(mount["mountPath"], name))
            place.mkdir(parents=True, exist_ok=True)
        own = self.environment(name)
        if name.startswith("ray-"):  # what the operator adds
            secret = cluster()["authOptions"]["secretName"]
            own |= {"FQ_RAY_IP": "127.0.0.1", "RAY_AUTH_TOKEN": self.secrets[secret, "auth_token"]}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = psutil.Popen(
                self.command(name), env=own, cwd=PROJECT_ROOT, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def healthy(self, name: str) -> bool:
        """Whether the readiness probe of the manifest passes, or else that of liveness."""
        if self.running[name].poll() is not None:
            said = self.log(name)
            assert 0 < said.count(TOO_SLOW) < STARTS, said[-4000:]
            self.end(name, how=signal.SIGKILL)
            self._start(name)  # as Kubernetes does
            return False
        container = _pod(name).container
        probe = container.get("readinessProbe") or container["livenessProbe"]
        if grpc := probe.get("grpc"):
            assert grpc == {"port": 4000, "service": "DagsterApi"}  # what the command asks, too
            return self._passes(name, [sys.executable, *GRPC, str(self.ports["code"])])
        if command := probe.get("exec"):
            return self._passes(name, command["command"])
        asked = probe["httpGet"]
        headers = {h["name"]: h["value"] for h in asked.get("httpHeaders", ())}
        port = {3000: self.ports["webserver"], 8080: self.ports["http"]}.get(asked["port"])
        # The host that the gate lets in has the port in it.
        headers = {k: v.replace("3000", str(port)) for k, v in headers.items()}
        where = f"http://127.0.0.1:{port or self.agents[name]}{asked['path']}"
        with suppress(OSError):
            request = urllib.request.Request(where, headers=headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(answer.status == 200)
        return False

    def _passes(self, name: str, command: list[str]) -> bool:
        done = subprocess.run(
            command, env=self.environment(name), cwd=PROJECT_ROOT, check=False, capture_output=True
        )
        return done.returncode == 0

    def end(self, *names: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End pods with all that they have started: what is left after a moment is killed."""
        ended = {name: self.running.pop(name) for name in names}
        everything: list[psutil.Process] = []
        for process in ended.values():
            with suppress(psutil.NoSuchProcess):
                everything += [process, *process.children(recursive=True)]
                process.send_signal(how)
        _, alive = psutil.wait_procs(everything, timeout=0 if how is signal.SIGKILL else 5)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(everything, timeout=30)

    def close(self) -> None:
        """End everything: Dagster first, so that no run is in the middle of something."""
        self.end(*(n for n in self.running if not n.startswith("ray-")))
        self.end(*self.running, how=signal.SIGKILL)
        shutil.rmtree(self.short, ignore_errors=True)

    # -- asking -----------------------------------------------------------------------------

    def request(
        self,
        path: str = "/",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        user: tuple[str, str] | None = (USER, PASSWORD),
    ) -> tuple[int, str]:
        """Status and text of an answer of the proxy, as the cluster's ingress asks it."""
        sign_in = {"Authorization": basic(*user)} if user else {}
        return answer_of(self.site + path, body, {**sign_in, **(headers or {})})

    @contextmanager
    def as_code(self, monkeypatch: Any) -> Iterator[None]:
        """This process has the environment of the code location meanwhile."""
        with monkeypatch.context() as patch:
            for name, value in self.environment("code").items():
                patch.setenv(name, value)
            yield


def answer_of(
    url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Status and text of an answer, whatever it is."""
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class ClusterUI(SignedIn):
    """The UI's endpoint through the proxy, and what it shows of a run's output."""

    def output(self, run: str) -> str:
        """What the run's page shows as printed by its steps, both streams."""
        events = self.ask(CAPTURED, id=run)["logsForRun"]["events"]
        keys = [[run, "compute_logs", e["fileKey"]] for e in events if e.get("fileKey")]
        found = [self.ask(PRINTED, key=key)["capturedLogs"] for key in keys]
        return "".join((f["stdout"] or "") + (f["stderr"] or "") for f in found)


CAPTURED = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection {
  events { ... on LogsCapturedEvent { fileKey } } } } }"""
PRINTED = """query($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"""
_RAY = {
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "3",
    "RAY_memory_monitor_refresh_ms": "0",  # the memory of this machine is of others too
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_register_timeout_seconds": "120",
}


def _pod(name: str) -> Pod:
    """The pod of a process: workers are called ``ray-gpu-1`` …"""
    return pods()[re.sub(r"-\d+$", "", name)]


def _inherited() -> dict[str, str]:
    """What a container has of its image: no folder of this process, and no secret."""
    kept = ("VIRTUAL_ENV", "LANG", "HF_HUB_OFFLINE", "HOME")
    return {name: os.environ[name] for name in kept if name in os.environ}


@contextmanager
def ray_deployment(folder: Path, profile: Path, workers: int = 2) -> Iterator[RayStack]:
    """Every pod, healthy: Ray's head and ``workers``, code location, webserver, daemon, proxy."""
    with ExitStack() as opened:
        opened.enter_context(alone())
        catalog = opened.enter_context(postgres())
        for database in ("im", "dagster"):
            catalog.create(database)
        bucket = opened.enter_context(object_store("mining"))
        stack = RayStack(folder, profile, catalog, bucket)
        opened.callback(stack.close)
        stack.prepare()
        stack.start("ray-head")
        stack.start("code", *(f"ray-gpu-{number}" for number in range(1, workers + 1)))
        stack.start("webserver", "daemon", "proxy")
        yield stack
