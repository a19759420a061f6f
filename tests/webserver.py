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

import dagster as dg

from im_assets.dev import workspace_file
from im_resources.study import PROJECT_ROOT, Study

# The backfill daemon looks every 30 s whether a run has ended, a constant without a setting: a
# backfill of seven runs would wait for minutes. `Webserver.backfill` would time out without this.
DAEMON = """
import sys
import dagster._daemon.controller as controller
controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
from dagster._daemon.cli import main
sys.exit(main())
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
        return self.backfill(
            {
                "assetSelection": keys(names),
                "partitionNames": list(partitions),
                "fromFailure": False,
            }
        )

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
        tags = [{"key": "dagster/from_ui", "value": "true"}]
        launched = self.ask(BACKFILL, params={"tags": tags, **params})["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        def ended() -> list[str] | None:
            found = self.ask(BACKFILL_STATE, id=launched["backfillId"])["partitionBackfillOrError"]
            assert not found["error"], found["error"]
            over = all(run["status"] in OVER for run in found["runs"])
            done = found["status"].startswith(("COMPLETED", "FAILED", "CANCELED")) and over
            return [run["id"] for run in reversed(found["runs"])] if done else None

        return _wait(ended)

    def status(self, run_id: str) -> str:
        status: str = self.ask(RUN_STATE, id=run_id)["runOrError"]["status"]
        return status

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """What the run's page shows, in order."""
        events: list[dict[str, Any]] = self.ask(LOG, id=run_id)["logsForRun"]["events"]
        return events


@contextmanager
def webserver(study: Study) -> Iterator[Webserver]:
    """The UI of the study in the environment on a free port, and the daemon behind it."""
    study.history.mkdir(parents=True, exist_ok=True)
    dg.DagsterInstance.get().dispose()  # the history is there before two processes make it
    workspace = str(workspace_file(study))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
    commands = [served, [sys.executable, "-c", DAEMON, "run"]]
    log = study.folder / "webserver.log"
    with log.open("wb") as output:
        children = [
            subprocess.Popen(
                [*command, "-w", workspace],
                cwd=PROJECT_ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # SIGINT goes to this process, which ends its own
            )
            for command in commands
        ]
        server = Webserver(port)
        try:
            _wait(lambda: _answers(server, children, log))
            yield server
        finally:
            for child in children:
                child.send_signal(signal.SIGINT)
            for child in children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(60)
                with suppress(ProcessLookupError):  # a run that was still going on
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def keys(names: Sequence[str] | Mapping[str, Any]) -> list[dict[str, list[str]]]:
    """Asset keys as the API takes them."""
    return [{"path": [name]} for name in names]


def _answers(server: Webserver, children: Sequence[subprocess.Popen[bytes]], log: Path) -> bool:
    ended = [child.args for child in children if child.poll() is not None]
    assert not ended, log.read_text(encoding="utf-8")[-4000:]
    with suppress(OSError):  # it does not listen yet
        return bool(server.ask(ASSETS)["repositoriesOrError"].get("nodes"))
    return False


def _wait(happened: Callable[[], Any]) -> Any:
    """What ``happened()`` returns as soon as that is something; fails after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < deadline, f"nothing within {PATIENCE} s"
        time.sleep(0.3)
    return found
