"""``python -m im_resources.gate``: ``dagster-webserver``, closed to the web pages of others.

Dagster's open-source webserver asks nobody who they are, and it acts on a request from any page: an
image's address with a mutation in it is enough to erase an asset's history. The gate is middleware
around that same application, in the same process, so there is no port without it. It takes every
option of ``dagster-webserver``. A request passes when

- its ``Host`` is this server's own: 127.0.0.1, localhost or [::1] with its port, or that of an
  origin in ``IM_ALLOWED_ORIGINS``. A name that an attacker's DNS points here is none of them;
- its ``Origin``, if it has one, is the page of that host: browsers put one on whatever a page posts
  and on every WebSocket, and a page cannot change it;
- its ``Sec-Fetch-Site``, if it has one, says the same; except a link that is followed to a page;
- it only reads, or is a GraphQL query as a browser sends none unasked: POST to ``…/graphql`` with
  ``Content-Type: application/json``, or a WebSocket. There is no query in an address.

So ``/report_asset_materialization/`` and its kind, which nothing here uses, are closed. A program
without a browser (curl, Dagster's GraphQL client) sends neither ``Origin`` nor ``Sec-Fetch-Site``,
and passes: who may connect at all is for the network, or the proxy in front, to decide.

Behind a proxy, ``IM_ALLOWED_ORIGINS`` is what browsers have in their address bar, one or several,
with blanks or commas between: ``https://mining.example.org``. The proxy hands ``Host`` on
unchanged. Loopback stays allowed, for health checks.
"""

import logging
import os
import re
from collections.abc import Iterable
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

VARIABLE = "IM_ALLOWED_ORIGINS"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
logger = logging.getLogger("dagster-webserver")


class Gate:
    """ASGI middleware: refuses what the module's docstring does not let pass, with status 403."""

    def __init__(self, app: ASGIApp, origins: Iterable[str] = ()) -> None:
        """``origins`` as ``scheme://host[:port]``, beside the server's own on loopback."""
        self.app = app
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):  # the server's own start and end
            await self.app(scope, receive, send)
        elif (why := self.refusal(scope)) is None:
            await self.app(scope, receive, _unframed(send))
        else:
            logger.warning("refused %s %r: %s", _method(scope), scope["path"][:100], why)
            if scope["type"] == "websocket":
                await WebSocketClose(code=1008, reason=why[:100])(scope, receive, send)
            else:
                await PlainTextResponse(f"{why}\n", status_code=403)(scope, receive, send)

    def refusal(self, scope: Scope) -> str | None:
        """Why this request does not pass; None when it does."""
        headers = Headers(scope=scope)
        allowed = self.origins | {f"http://{name}:{scope['server'][1]}" for name in LOOPBACK}
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        pages = {origin for origin in allowed if hosts == [origin.partition("://")[2]]}
        if not pages:
            return (
                f"Host {_shown(hosts)} is not this server's; reached by another name or port, "
                f"it has to be in {VARIABLE}, as in {VARIABLE}=http://localhost:8080"
            )
        if origins and not (len(origins) == 1 and origins[0] in pages):
            return f"Origin {_shown(origins)} is another site's"
        if (site := headers.get("sec-fetch-site")) not in (None, "same-origin", "none") and not (
            _method(scope) in ("GET", "HEAD")
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        ):
            return f"the request comes from a page of another site (Sec-Fetch-Site {site!r})"
        return _unasked(scope, headers)


def _unasked(scope: Scope, headers: Headers) -> str | None:
    """Why this is no request of the UI, whoever sends it."""
    method, graphql = _method(scope), scope["path"].rstrip("/").endswith("/graphql")
    if method in ("GET", "HEAD"):
        if graphql and scope["query_string"]:
            return "queries go by POST, not in an address"
    elif method == "POST" and graphql:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return f"a query is posted as application/json, not as {kind or 'nothing'!r}"
    elif method != "WEBSOCKET":
        return "what changes something is a GraphQL query, by POST"
    return None


def _method(scope: Scope) -> str:
    return "WEBSOCKET" if scope["type"] == "websocket" else str(scope["method"])


def _shown(values: list[str]) -> str:
    return ", ".join(repr(value[:100]) for value in values) or "(none)"


def _unframed(send: Send) -> Send:
    """No page of another site shows the UI in a frame, where its reader would click on it."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "DENY"
        await send(message)

    return sending


def allowed_origins() -> list[str]:
    """The origins in ``IM_ALLOWED_ORIGINS``; raises SystemExit for what is none."""
    origins = re.split(r"[\s,]+", os.environ.get(VARIABLE, "").strip().lower())
    for origin in filter(None, origins):
        if not re.fullmatch(r"https?://([\w.-]+|\[[\da-f:]+\])(:\d+)?", origin):
            raise SystemExit(
                f"{VARIABLE}: {origin!r} is no origin; "
                "accepted: scheme, host and port as in https://mining.example.org:8443"
            )
    return [origin for origin in origins if origin]


def main() -> None:
    """Be ``dagster-webserver`` behind the gate."""
    from dagster_webserver import cli

    # The command makes its application by this name, and has no option for middleware. Its options,
    # signals and storage settings stay Dagster's.
    name = "create_app_from_workspace_process_context"
    origins, create = allowed_origins(), vars(cli)[name]

    def create_gated(*args: Any, **kwargs: Any) -> Starlette:
        app: Starlette = create(*args, **kwargs)
        app.add_middleware(Gate, origins=origins)
        return app

    vars(cli)[name] = create_gated
    cli.main()


if __name__ == "__main__":
    main()
