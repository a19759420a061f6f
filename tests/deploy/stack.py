"""The services of ``deploy/compose/compose.yaml`` as processes of this machine, without containers.

Their commands, environments and health checks are read from that file; only addresses and folders
are this machine's. Secrets come from ``deploy/setup``, through the container's entrypoint.
"""

import base64
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from im_assets.common.partitions import range_tags
from im_resources.study import PROJECT_ROOT
from im_resources.warehouse import Warehouse
from tests.language_model.models import write_model
from tests.servers import as_postgres, free_ports, postgres_program
from tests.study import valleys, write_profile
from tests.webserver import OVER, Webserver

COMPOSE = PROJECT_ROOT / "deploy" / "compose"
USER, PASSWORD = "anna", "correct horse battery"
PATIENCE = 400  # seconds, on a machine that does much else
JSON = {"Content-Type": "application/json"}
NEW_SEEDS = 2  # that a refit draws, beside the 8 of the first fit


def missing() -> str | None:
    """What keeps the services from being started here; None when nothing does."""
    try:
        import dagster_postgres  # noqa: F401
    except ImportError:
        return "dagster-postgres is not installed"
    if postgres_program("postgres") is None:
        return "Postgres is not installed (Debian: postgresql)"
    if shutil.which("caddy") is None:
        return "Caddy is not installed (Debian: caddy)"
    return None


class Served(ABC):
    """Running services below ``folder``, whose UI is at ``site``."""

    folder: Path
    site: str
    patience = PATIENCE

    @abstractmethod
    def request(
        self,
        path: str = "/",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        user: tuple[str, str] | None = (USER, PASSWORD),
    ) -> tuple[int, str]:
        """Status and text of an answer of the proxy, to who signs in as ``user``."""

    def log(self, service: str) -> str:
        """What a service printed."""
        return (self.folder / f"{service}.log").read_text(encoding="utf-8", errors="replace")

    def wait(self, happened: Callable[[], Any], what: str) -> Any:
        """What ``happened()`` returns as soon as it is something; fails after ``patience``."""
        deadline = time.monotonic() + self.patience
        while not (found := happened()):
            assert time.monotonic() < deadline, f"waited {self.patience} s for {what}"
            time.sleep(0.3)
        return found


class Stack(Served):
    """The running services below ``folder``; `deployment` starts and ends them."""

    def __init__(self, folder: Path, profile: Path) -> None:
        self.folder = folder
        self.services: dict[str, Any] = yaml.safe_load(
            (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
        )["services"]
        self.ports = dict(
            zip(("postgres", "code", "webserver", "https", "http"), free_ports(5), strict=True)
        )
        self.site = f"https://localhost:{self.ports['https']}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        # Of a user that is not root, so not below a folder of root's.
        self.database = Path(tempfile.mkdtemp(prefix="im-postgres-"))
        self.settings = {"IM_PROFILE": str(profile)}

    # -- what compose.yaml says, at this machine's addresses ----------------------------------

    @property
    def volumes(self) -> Path:
        return self.folder / "volumes"

    @property
    def landing(self) -> Path:
        """The folder that new data lands in; made by ``deploy/setup``."""
        return self.folder / "landing"

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.volumes / "home" / "tiny" / "warehouse.duckdb")

    def environment(self, service: str) -> dict[str, str]:
        """The service's variables, and no others that this process may have for its own study."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("IM_", "DAGSTER_"))}
        own = self.services[service].get("environment", {})
        here = {name: self._here(str(value), service) for name, value in own.items()}
        return inherited | here | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DAGSTER_HOME": str(COMPOSE / "dagster"),
            "IM_CODE_HOST": "127.0.0.1",
            "IM_ALLOWED_ORIGINS": self.site,
            "IM_WEBSERVER": f"127.0.0.1:{self.ports['webserver']}",
            "IM_HTTP_PORT": str(self.ports["http"]),
            "IM_HTTPS_PORT": str(self.ports["https"]),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "IM_LANDING_DIR": str(self.landing),
            "IM_USERS": str(self.folder / "secrets" / "users"),
            "IM_SECRETS": str(self.folder / "run" / "secrets"),
        }  # fmt: skip

    def command(self, service: str, words: list[str] | None = None) -> list[str]:
        """The service's command, or ``words`` in its place, as its container would run it."""
        words = [self._here(word, service) for word in words or self.services[service]["command"]]
        if service in ("postgres", "proxy"):  # images of others, without our entrypoint
            return words
        return [str(COMPOSE / "entrypoint"), *words]

    def _here(self, text: str, service: str) -> str:
        ports = self.ports
        here = {
            "/app/": f"{PROJECT_ROOT}/", "0.0.0.0": "127.0.0.1", "3000": str(ports["webserver"]),
            "4000": str(ports["code"]), "8080": str(ports["http"]),
            "postgres:5432": f"127.0.0.1:{ports['postgres']}",
        }  # fmt: skip
        # All at once, so that a port is not taken for another one.
        inside = "|".join(map(re.escape, here))
        text = re.sub(rf"(?<!\w)({inside})(?!\d)", lambda m: here[m[1]], text)
        for volume in self.services[service].get("volumes", ()):
            name, target = volume.split(":")[:2]
            if not name.startswith(("$", ".")) and text.startswith(target):
                text = text.replace(target, str(self.volumes / name), 1)
        return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: self.settings.get(m[1], m[2]), text)

    # -- starting and ending ----------------------------------------------------------------

    def prepare(self) -> None:
        """Secrets, volumes and an empty database."""
        done = subprocess.run(
            [PROJECT_ROOT / "deploy" / "setup", USER],
            env=os.environ | {"IM_COMPOSE": str(self.folder)},
            input=f"{PASSWORD}\n".encode(), check=True, capture_output=True,
        )  # fmt: skip
        assert PASSWORD.encode() not in done.stdout + done.stderr
        for volume in ("home", "logs", "models", "certificates"):
            (self.volumes / volume).mkdir(parents=True)
        secrets = self.folder / "run" / "secrets"
        secrets.mkdir(parents=True)
        shutil.copy(self.folder / "secrets" / "postgres_password", secrets / "PGPASSWORD")
        shutil.copy(secrets / "PGPASSWORD", self.database / "password")
        if os.getuid() == 0:
            shutil.chown(self.database, "postgres", "postgres")
        initdb = ["initdb", "--pgdata=data", "--username=dagster", "--pwfile=password"]
        self._postgres_run(*initdb, "--data-checksums", "--auth=scram-sha-256")
        self.start("postgres")
        self.psql("postgres", "CREATE DATABASE dagster")

    def start(self, *services: str) -> None:
        """Start services, side by side, and wait until their health checks pass."""
        for service in services:
            self._start(service)
        for service in services:
            self.wait(partial(self.healthy, service), f"{service} to be healthy")

    def _start(self, service: str) -> None:
        log = (self.folder / f"{service}.log").open("ab")
        with log:
            if service == "postgres":
                where = ["-h", "127.0.0.1", "-k", str(self.database)]
                where += ["-D", "data", "-p", str(self.ports["postgres"])]
                command = [str(postgres_program("postgres")), *where]
                options = as_postgres() | {"cwd": self.database}
            else:
                caddyfile = ["--config", str(COMPOSE / "Caddyfile"), "--adapter", "caddyfile"]
                proxy = ["caddy", "run", *caddyfile]
                command = proxy if service == "proxy" else self.command(service)
                options = {"cwd": PROJECT_ROOT}
            self.running[service] = subprocess.Popen(
                command, env=self.environment(service), stdout=log, stderr=log,
                start_new_session=True, **options,
            )  # fmt: skip

    def healthy(self, service: str) -> bool:
        """Whether the health check of compose.yaml passes."""
        process = self.running[service]
        assert process.poll() is None, self.log(service)[-4000:]
        if service == "postgres":
            with suppress(subprocess.CalledProcessError):
                return bool(self.psql("postgres", "SELECT 1"))
            return False
        kind, *words = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        # Without the entrypoint, as a container's health check is.
        command = [self._here(word, service) for word in words]
        environment = self.environment(service)
        return subprocess.run(
            command, env=environment, cwd=PROJECT_ROOT, check=False, capture_output=True
        ).returncode == 0  # fmt: skip

    def end(self, *services: str, how: signal.Signals = signal.SIGTERM) -> None:
        """As the container engine ends services; SIGKILL takes all that they started with them."""
        processes = {service: self.running.pop(service) for service in services}
        for service, process in processes.items():
            if how is signal.SIGKILL:
                os.killpg(process.pid, how)
            else:
                process.send_signal(signal.SIGINT if service == "postgres" else how)
        for process in processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def land(self, target: str, name: str) -> None:
        """A new file of 12 rows for a source, uploaded under another name and then renamed."""
        upload = self.landing / target / f"{name}.part"
        upload.parent.mkdir(exist_ok=True)
        upload.write_text("".join(json.dumps(row) + "\n" for row in valleys(12)), encoding="utf-8")
        upload.rename(upload.with_name(name))

    def fitted(self) -> int:
        """How many mixtures the rule is fitted on."""
        return int(self.warehouse.read_table("quality_rule")["n"].iloc[0])

    # -- asking -----------------------------------------------------------------------------

    def run(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """``docker compose run SERVICE words``: a command with the service's environment."""
        return subprocess.run(
            self.command(service, list(words)), env=self.environment(service), cwd=PROJECT_ROOT,
            check=False, capture_output=True, text=True,
        )  # fmt: skip

    def psql(self, database: str, statement: str) -> str:
        """A statement's result, as text without a header."""
        password = (self.folder / "run" / "secrets" / "PGPASSWORD").read_text(encoding="utf-8")
        where = ["-h", "127.0.0.1", "-p", str(self.ports["postgres"]), "-U", "dagster"]
        return subprocess.run(
            [str(postgres_program("psql")), *where, "-d", database, "-Atc", statement],
            env=os.environ | {"PGPASSWORD": password},
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    def request(
        self,
        path: str = "/",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        user: tuple[str, str] | None = (USER, PASSWORD),
    ) -> tuple[int, str]:
        """Status and text of an answer of the proxy, whose certificate is checked."""
        sign_in = {"Authorization": basic(*user)} if user else {}
        headers = {**sign_in, **(headers or {})}
        request = urllib.request.Request(self.site + path, data=body, headers=headers)
        trusted = ssl.create_default_context(cafile=str(self.authority))
        try:
            with urllib.request.urlopen(request, timeout=60, context=trusted) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @property
    def authority(self) -> Path:
        """The certificate of the proxy's own authority."""
        return self.volumes / "certificates/caddy/pki/authorities/local/root.crt"

    def _postgres_run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(postgres_program(program)), *arguments], cwd=self.database,
            check=True, capture_output=True, **as_postgres(),
        )  # fmt: skip


LAUNCH = """mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
RUNS = "{ runsOrError { ... on Runs { results { runId status jobName } } } }"


class SignedIn(Webserver):
    """The UI's endpoint through the proxy, for who has the password."""

    def __init__(self, stack: Served) -> None:
        super().__init__(int(stack.site.rpartition(":")[2]))
        self.stack = stack

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        status, text = self.stack.request("/graphql", body, JSON)
        assert status == 200, (status, text)
        answer = json.loads(text)
        assert not answer.get("errors"), answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def launch_job(self, job: str, partitions: list[str] | None = None) -> str:
        """Launch one run of a job, over a range of its partitions if it has any; its id."""
        tags = range_tags(partitions or ())
        params = {
            "selector": self.location() | {"jobName": job},
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        }
        launched = self.ask(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run: str = launched["run"]["runId"]
        return run

    def runs(self, job: str | None = None) -> dict[str, str]:
        """Status of every run, or of those of one job, the newest first."""
        found = self.ask(RUNS)["runsOrError"]["results"]
        return {r["runId"]: r["status"] for r in found if job in (None, r["jobName"])}

    def at_rest(self) -> dict[str, str]:
        """Every run's status, once none is going on; the automation starts some by itself."""
        self.stack.wait(lambda: set(self.runs().values()) <= OVER, "every run to end")
        return self.runs()

    def finished(self, run: str) -> str:
        """The run's status at its end."""
        self.stack.wait(lambda: self.status(run) in OVER, f"run {run} to end")
        status = self.status(run)
        if status != "SUCCESS":
            told = [e["message"] for e in self.events(run) if e.get("level") == "ERROR"]
            print("\n".join(told), self.stack.log("code")[-4000:], sep="\n")
        return status


def write_automated(folder: Path) -> Path:
    """The profile of a tiny study that takes in what lands, and refits by itself."""
    return write_profile(
        folder, write_model(folder / "model"),
        automation=True,
        landing={"folder": "${IM_LANDING_DIR}", "settle_seconds": 1},
        refit={"new_seeds": NEW_SEEDS},
    )  # fmt: skip


@contextmanager
def deployment(folder: Path, profile: Path) -> Iterator[Stack]:
    """Every service, healthy; ended and its database removed at the end."""
    stack = Stack(folder, profile)
    try:
        stack.prepare()
        stack.start("code")
        stack.start("webserver", "daemon", "proxy")
        yield stack
    finally:
        stack.end(*stack.running.keys() - {"postgres"})
        stack.end(*stack.running)
        shutil.rmtree(stack.database)


def basic(user: str, password: str) -> str:
    """The header of a sign-in."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
