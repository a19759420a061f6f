"""Dagster's webserver and daemon on one study, driven as the pages of its UI drive them.

The UI is a client of one GraphQL endpoint. The requests here are those that its buttons send in
dagster 1.13.27 (LaunchAssetChoosePartitionsDialog.tsx, LaunchAssetExecutionButton.tsx).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from im_resources.study import PROJECT_ROOT, Study

# `make dev`, with a daemon that looks every second whether a backfill has ended, and with runs that
# need not import what others have.
DEV = """
import sys
import im_assets.dev as dev
dev.DAEMON = "tests.impatient_daemon"
dev.DEFINITIONS = "tests.forked_runs"
sys.exit(dev.main())
"""
PATIENCE = 600  # seconds for a backfill or a run

ASSETS = """{
  assetNodes { assetKey { path } partitionDefinition { name } }
  repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } }
}"""
BACKFILL = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
BACKFILL_STATE = """query($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message } runs(limit: 100) { id status } }
  }
}"""
TERMINATE = """mutation($id: String!) {
  terminateRun(runId: $id) { __typename ... on PythonError { message } }
}"""
RUN_STATE = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"""
LOG = """query($id: ID!) {
  logsForRun(runId: $id) {
    ... on EventConnection {
      events {
        __typename
        ... on MessageEvent { message level stepKey timestamp }
        ... on MaterializationEvent { assetKey { path } partition }
        ... on AssetCheckEvaluationEvent {
          evaluation { checkName success severity description assetKey { path } }
        }
      }
    }
  }
}"""
OVER = {"SUCCESS", "FAILURE", "CANCELED"}


class Webserver:
    """The endpoint of one study's UI."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer's data. Raises AssertionError with the errors that the server reports."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            self.url, data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert not answer.get("errors"), answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def assets(self) -> dict[str, bool]:
        """Every asset, and whether it has partitions."""
        nodes = self.ask(ASSETS)["assetNodes"]
        return {n["assetKey"]["path"][-1]: n["partitionDefinition"] is not None for n in nodes}

    def location(self) -> dict[str, str]:
        """How requests name the code location; there is one."""
        (node,) = self.ask(ASSETS)["repositoriesOrError"]["nodes"]
        return {
            "repositoryName": node["name"],
            "repositoryLocationName": node["location"]["name"],
        }

    def materialize_all(self) -> list[str]:
        """The button "Materialize all" over assets of several partition sets; the runs' ids."""
        return self.backfill({"assetSelection": keys(self.assets()), "allPartitions": True})

    def backfill_assets(self, names: Sequence[str], partitions: Sequence[str]) -> list[str]:
        """The button "Materialize selected" over assets that share their partitions."""
        return self.backfill(selected(names, partitions))

    def backfill_job(self, job: str, partitions: Sequence[str]) -> list[str]:
        """The button "Materialize all" on a job's page, then "Launch backfill"."""
        return self.backfill(
            {
                "selector": {
                    "partitionSetName": f"{job}_partition_set",
                    "repositorySelector": self.location(),
                },
                "partitionNames": list(partitions),
                "fromFailure": False,
            }
        )

    def backfill(self, params: Mapping[str, Any]) -> list[str]:
        """Launch a backfill and wait for its end; the ids of its runs, the first one first."""
        return self.ended(self.launch(params))

    def launch(self, params: Mapping[str, Any]) -> str:
        """Launch a backfill; its id."""
        tags = [{"key": "dagster/from_ui", "value": "true"}]
        launched = self.ask(BACKFILL, params={"tags": tags, **params})["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        backfill: str = launched["backfillId"]
        return backfill

    def terminate(self, run_id: str) -> None:
        """The button "Terminate" of a run."""
        ended = self.ask(TERMINATE, id=run_id)["terminateRun"]
        assert ended["__typename"] == "TerminateRunSuccess", ended

    def ended(self, backfill: str) -> list[str]:
        """Wait for the end of a backfill; the ids of its runs, the first one first."""

        def ended() -> list[str] | None:
            found = self.ask(BACKFILL_STATE, id=backfill)["partitionBackfillOrError"]
            assert not found["error"], found["error"]
            over = all(run["status"] in OVER for run in found["runs"])
            done = found["status"].startswith(("COMPLETED", "FAILED", "CANCELED")) and over
            return [run["id"] for run in reversed(found["runs"])] if done else None

        return wait_until(ended)

    def status(self, run_id: str) -> str:
        status: str = self.ask(RUN_STATE, id=run_id)["runOrError"]["status"]
        return status

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """What the run's page shows, in order."""
        events: list[dict[str, Any]] = self.ask(LOG, id=run_id)["logsForRun"]["events"]
        return events


@contextmanager
def webserver(study: Study) -> Iterator[Webserver]:
    """The UI of the study in the environment on a free port, as ``make dev`` starts it."""
    study.folder.mkdir(parents=True, exist_ok=True)
    log = study.folder / "webserver.log"
    server = Webserver(free_port())
    with log.open("wb") as output:
        dev = subprocess.Popen(
            [sys.executable, "-c", DEV],
            cwd=PROJECT_ROOT,
            env=os.environ | {"PORT": str(server.port)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: _answers(server, dev, log))
            yield server
        finally:
            dev.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                dev.wait(90)
            dev.kill()  # of one that is over, it does nothing
            dev.wait()


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def selected(names: Sequence[str], partitions: Sequence[str]) -> dict[str, Any]:
    """What "Materialize selected" sends for these assets and partitions."""
    return {
        "assetSelection": keys(names),
        "partitionNames": list(partitions),
        "fromFailure": False,
    }


def keys(names: Sequence[str] | Mapping[str, Any]) -> list[dict[str, list[str]]]:
    """Asset keys as the API takes them."""
    return [{"path": [name]} for name in names]


def _answers(server: Webserver, dev: subprocess.Popen[bytes], log: Path) -> bool:
    assert dev.poll() is None, log.read_text(encoding="utf-8")[-4000:]
    with suppress(OSError):  # it does not listen yet
        return bool(server.ask(ASSETS)["repositoriesOrError"].get("nodes"))
    return False


def wait_until(happened: Callable[[], Any]) -> Any:
    """What ``happened()`` returns as soon as that is something; fails after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < deadline, f"nothing within {PATIENCE} s"
        time.sleep(0.3)
    return found
