"""A Postgres and an S3-compatible store as processes of this machine, for tests of a cluster."""

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

PORTS = 24_001, 32_767  # Ray takes 23,000 to 24,000 for its clients
PATIENCE = 300  # seconds, on a machine that does much else
PASSWORD = "the tests' own"
# What s3fs, DuckDB and the store's server agree on; the server asks for nothing.
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests-secret"}
REGION = {"AWS_DEFAULT_REGION": "us-east-1"}


def missing() -> str | None:
    """What keeps a cluster's services from being started here; None when nothing does."""
    try:
        import duckdb_extension_ducklake  # noqa: F401
        import moto  # noqa: F401
        import psycopg2  # noqa: F401
        import ray  # noqa: F401
        import s3fs  # noqa: F401
    except ImportError as error:
        return f"the extra `cluster` is not installed ({error.name})"
    if postgres_program("postgres") is None:
        return "Postgres is not installed (Debian: postgresql)"
    return None


def free_ports(number: int) -> list[int]:
    """Free ports; all are held until all are found.

    Below those that the system gives to whoever asks for any: between here and the server's start,
    one of these would now and then be taken by another process.
    """
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < number:
            opened = held.enter_context(socket.socket())
            with suppress(OSError):  # taken
                opened.bind(("127.0.0.1", random.SystemRandom().randrange(*PORTS)))
                found.append(opened.getsockname()[1])
    return found


@contextmanager
def alone() -> Iterator[None]:
    """No other test of this machine has a Ray cluster meanwhile: its processes fill two cores."""
    with (Path(tempfile.gettempdir()) / "im-tests-ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        yield


def postgres_program(name: str) -> str | None:
    """The path of one of Postgres' programs; None where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))


def as_postgres() -> dict[str, Any]:
    """Options of a process: Postgres refuses to be root."""
    if os.getuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


class Postgres:
    """A server on a port of its own, whose user ``im`` signs in with $PGPASSWORD."""

    def __init__(self) -> None:
        # Of a user that is not root, so not below a folder of root's.
        self.folder = Path(tempfile.mkdtemp(prefix="im-postgres-"))
        self.port = free_ports(1)[0]
        self.process: subprocess.Popen[bytes] | None = None
        password = self.folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            shutil.chown(password, "postgres", "postgres")
        self._run(
            "initdb",
            "--pgdata=data",
            "--username=im",
            "--pwfile=password",
            "--auth=scram-sha-256",
            "--no-sync",
        )

    def address(self, database: str) -> str:
        """The address of a database, without the password."""
        return f"postgresql://im@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = postgres_program("postgres")
        assert program is not None
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        options += ["-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-D", "data", "-p", str(self.port), *options],
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True, **as_postgres(),
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
                return
            except subprocess.CalledProcessError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.1)

    def create(self, database: str) -> str:
        """Make a database; returns its address."""
        self._run(
            "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "im", database, password=True
        )
        return self.address(database)

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it: SIGINT at once and cleanly, SIGQUIT as in a crash."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, password: bool = False) -> None:
        path = postgres_program(program)
        assert path is not None
        env = os.environ | ({"PGPASSWORD": PASSWORD} if password else {})
        subprocess.run([path, *arguments], cwd=self.folder, env=env, check=True,
                       capture_output=True, **as_postgres())  # fmt: skip


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running Postgres, which is gone afterwards with what it holds."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def object_store(bucket: str = "mining") -> Iterator[dict[str, str]]:
    """A running S3-compatible server with a bucket; the variables under which it is reached."""
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            _until_it_answers(url, process)
            request = urllib.request.Request(f"{url}/{bucket}", method="PUT")
            # Nothing is checked, but the form of a signature is what names the service.
            scope = "Credential=tests/20260101/us-east-1/s3/aws4_request"
            request.add_header("Authorization", f"AWS4-HMAC-SHA256 {scope}")
            urllib.request.urlopen(request, timeout=30).close()
            yield {**KEYS, **REGION, "AWS_ENDPOINT_URL": url}
        finally:
            process.kill()
            process.wait()


def _until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
            return
        assert process.poll() is None, "the object store ended"
        assert time.monotonic() < deadline, "the object store does not answer"
        time.sleep(0.1)
