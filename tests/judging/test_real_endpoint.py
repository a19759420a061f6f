"""The judge against somebody else's server: `transformers serve` with the demo's model."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from im_assets.judging.asking import ask_all
from im_assets.judging.comparing import Comparison
from im_resources.judge import RequestError
from im_resources.warehouse import Warehouse
from tests.judging.endpoint_for_tests import endpoint
from tests.language_model.models import demo_model
from tests.processes import wait_for

SERVE = "from transformers.cli.transformers import main; main()"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The server's URL and its log; up when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = ["serve", str(demo_model()), "--host", "127.0.0.1", "--port", port]
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-c", SERVE, *arguments, "--device", "cpu", "--log-level", "info"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        )
        url = f"http://127.0.0.1:{port}"

        def up() -> bool:
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
                    return bool(reply.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        try:
            wait_for(up, child)
            yield f"{url}/v1", log
        finally:
            child.terminate()
            child.wait(60)


@pytest.mark.model
@pytest.mark.slow
def test_a_real_server_gives_verdicts_that_are_asked_for_once(
    served: tuple[str, Path], tmp_path: Path
) -> None:
    url, log = served
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    comparisons = [
        Comparison("Name the capital of France.", "", "Paris.", "I like fish."),
        Comparison("Name the capital of France.", "", "I like fish.", "Paris."),
    ]
    settings = {"model": str(demo_model()), "retries": 0, "timeout": 300}
    with endpoint(url, **settings) as judge:
        reply = judge.ask([("user", "Name the capital of France.")])
        assert reply.text.strip()
        asked = ask_all(comparisons, judge, warehouse)
        assert 3 <= asked.requests <= 5  # this one and two verdicts, each reminded at most once
        assert log.read_text("utf-8").count("POST /v1/chat/completions") == asked.requests
    # A small model need not obey, but what it says is a verdict or is told as none.
    for verdict in asked.verdicts.values():
        assert verdict.letter in ("A", "B", "tie") or "the reply" in str(verdict.problem)
    with endpoint(url, **settings) as judge:
        again = ask_all(comparisons, judge, warehouse)
        assert again.cached == 2 - asked.failed
        assert bool(again.requests) == bool(asked.failed)
    with (
        endpoint(url, **{**settings, "model": "another"}) as judge,
        pytest.raises(RequestError, match="pinned to"),
    ):
        judge.ask([("user", "Hello")])
