"""What a page of another site, or a name that was rebound, can send to ``make dev``."""

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from im_resources.gate import Gate, allowed_origins
from im_resources.study import load_study
from tests.language_model.fixtures import tiny_folder
from tests.study import write_profile
from tests.webserver import Webserver, webserver

__all__ = ["tiny_folder"]

VERSION = {"query": "{ version }"}
# Erases an asset's history, as an attack did it.
WIPE = 'mutation{wipeAssets(assetPartitionRanges:[{assetKey:{path:["eval_set"]}}]){__typename}}'
JSON = {"Content-Type": "application/json"}
EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Webserver]:
    """``python -m im_assets.dev`` on a small study."""
    folder = tmp_path_factory.mktemp("gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IM_HOME", str(folder / "home"))
        patch.setenv("IM_PROFILE", str(write_profile(folder, tiny_folder)))
        study = load_study(str(folder / "tiny.yaml"))
        patch.setenv("DAGSTER_STATE", str(study.history))
        with webserver(study) as started:
            yield started


def send(
    server: Webserver,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> tuple[int, str]:
    """Status and body of the answer to exactly this request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, body if body is None else json.dumps(body), headers or {})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


@pytest.mark.slow
def test_the_ui_and_programs_pass(server: Webserver) -> None:
    here = f"http://127.0.0.1:{server.port}"
    browser = JSON | {"Origin": here, "Sec-Fetch-Site": "same-origin"}
    assert send(server, "POST", "/graphql", browser, VERSION)[0] == 200
    assert send(server, "POST", "/graphql", JSON, VERSION)[0] == 200
    utf8 = {"Content-Type": "application/json; charset=utf-8"}
    assert send(server, "POST", "/graphql", utf8, VERSION)[0] == 200
    for name in ("localhost", "[::1]"):
        host = {"Host": f"{name}:{server.port}", "Origin": f"http://{name}:{server.port}"}
        assert send(server, "POST", "/graphql", JSON | host, VERSION)[0] == 200
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
                "Sec-Fetch-Dest": "document"}  # fmt: skip
    status, page = send(server, "GET", "/assets", followed)
    assert (status, "<!doctype html" in page.lower()) == (200, True)


REFUSED = {
    "a form or fetch of another site": (
        "POST", "/graphql", JSON | {"Origin": EVIL}, "another site's"),
    "a page in a sandbox": ("POST", "/graphql", JSON | {"Origin": "null"}, "another site's"),
    "another server on this machine": (
        "POST", "/graphql", JSON | {"Origin": "http://127.0.0.1:8888"}, "another site's"),
    "a name that was rebound": (
        "POST", "/graphql", JSON | {"Host": "evil.example:3000"}, "not this server's"),
    "a rebound page": ("GET", "/assets", {"Host": "evil.example"}, "not this server's"),
    "an image's address": (
        "GET", f"/graphql?query={WIPE}", {"Sec-Fetch-Site": "cross-site", "Accept": "image/*",
        "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, "another site"),
    "an image of our own page": (
        "GET", f"/graphql?query={WIPE}", {"Sec-Fetch-Site": "same-origin"}, "by POST"),
    "an old browser's image": ("GET", f"/graphql?query={WIPE}", {"Accept": "*/*"}, "by POST"),
    "a query in an address that is redirected": (
        "GET", f"/graphql/?query={WIPE}", {}, "by POST"),
    "a form": ("POST", f"/graphql?query={WIPE}",
        {"Content-Type": "application/x-www-form-urlencoded"}, "application/json"),
    "a form of plain text": ("POST", "/graphql", {"Content-Type": "text/plain"}, "'text/plain'"),
    "a query as itself": (
        "POST", "/graphql", {"Content-Type": "application/graphql"}, "application/json"),
    "a type that hides another": ("POST", "/graphql",
        {"Content-Type": "text/plain; application/json"}, "application/json"),
    "no type": ("POST", f"/graphql?query={WIPE}", {}, "application/json"),
    "a frame": ("GET", "/assets", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "iframe"}, "another site"),
    "a report by a page": (
        "POST", "/report_asset_materialization/eval_set", {"Origin": EVIL}, "another site's"),
    "a report": ("POST", "/report_asset_materialization/eval_set", JSON, "GraphQL"),
    "a check's report": ("POST", "/report_asset_check/eval_set?passed=true", {}, "GraphQL"),
    "an observation": ("POST", "/report_asset_observation/eval_set", {}, "GraphQL"),
    "what precedes a foreign request": ("OPTIONS", "/graphql", {"Origin": EVIL}, "another site's"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_and_told_why(server: Webserver, name: str) -> None:
    method, path, headers, why = REFUSED[name]
    body = VERSION if method == "POST" else None
    status, text = send(server, method, path.replace('"', "%22"), headers, body)
    assert status == 403
    assert why in text


@pytest.mark.slow
def test_subscriptions_are_for_our_own_page(server: Webserver) -> None:
    url = f"ws://127.0.0.1:{server.port}/graphql"
    protocol = [Subprotocol("graphql-ws")]
    for origin in (f"http://127.0.0.1:{server.port}", None):
        page = None if origin is None else Origin(origin)
        with connect(url, origin=page, subprotocols=protocol) as socket:
            socket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(socket.recv(60)) == {"type": "connection_ack"}
    for origin in (EVIL, "null", f"http://localhost:{server.port}"):
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, origin=Origin(origin), subprotocols=protocol)


def answered(**headers: str) -> int:
    """Status of a request that reaches the server under these headers, behind a proxy."""

    async def ok(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/{path:path}", ok, methods=["GET", "POST"])])
    app.add_middleware(Gate, origins=["https://mining.example.org", "https://other.example:8443"])
    with TestClient(app, base_url="http://127.0.0.1:3000") as client:
        return client.post("/graphql", headers=JSON | headers).status_code


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("mining.example.org", "https://mining.example.org", 200),
        ("other.example:8443", "https://other.example:8443", 200),
        ("mining.example.org", "http://mining.example.org", 403),  # not over TLS
        ("mining.example.org", "https://other.example:8443", 403),  # another page
        ("mining.example.org.evil.example", "https://mining.example.org", 403),
        ("other.example", "https://other.example:8443", 403),
    ],
)
def test_behind_a_proxy_its_name_is_allowed(host: str, origin: str, status: int) -> None:
    assert answered(Host=host, Origin=origin) == status


def test_origins_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_ALLOWED_ORIGINS", " https://A.example, http://[::1]:8080\n")
    assert allowed_origins() == ["https://a.example", "http://[::1]:8080"]
    monkeypatch.delenv("IM_ALLOWED_ORIGINS")
    assert allowed_origins() == []


@pytest.mark.parametrize(
    "wrong", ["*", "a.example", "https://a.example/ui", "null", "https://*.b.c"]
)
def test_what_is_no_origin_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_ALLOWED_ORIGINS", wrong)
    with pytest.raises(SystemExit, match="is no origin; accepted: scheme, host and port"):
        allowed_origins()
