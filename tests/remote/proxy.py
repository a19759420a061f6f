"""A proxy in front of an object store that fails as a test asks it to, and counts."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlparse

# What becomes of a request: an error's status, no answer for a while, a broken connection, or a
# body that is cut off. None: it is handed on.
Fate = int | Literal["stall", "reset", "cut"] | None
STALL_SECONDS = 4
SAID = b"<Error><Code>Odd</Code><Message>Signed with tests-secret</Message></Error>"
BODIES = {
    400: SAID,
    502: SAID,
    403: b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    500: b"<Error><Code>InternalError</Code><Message>We failed</Message></Error>",
    503: b"<Error><Code>ServiceUnavailable</Code><Message>Not now</Message></Error>",
}


@dataclass
class Proxy:
    """``fate`` says for each request (method, path) what becomes of it."""

    url: str
    fate: Callable[[str, str], Fate] = lambda method, path: None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def fails(self, times: int, fate: Fate, methods: str = "GET PUT HEAD POST DELETE") -> None:
        """The next requests of these methods fail so."""
        left, lock = [times], threading.Lock()

        def of(method: str, path: str) -> Fate:
            with lock:
                if method not in methods.split() or not left[0]:
                    return None
                left[0] -= 1
                return fate

        self.fate = of

    def count(self, method: str, ending: str = "") -> int:
        """How many requests there were of a method, for paths that end so."""
        return sum(m == method and p.split("?")[0].endswith(ending) for m, p in self.seen)


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy of the store at ``target``, on a port of its own."""
    host = urlparse(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            running.seen.append((self.command, self.path))
            fate = running.fate(self.command, self.path)
            if fate == "stall":
                time.sleep(STALL_SECONDS)
            if fate in ("stall", "reset"):
                self.close_connection = True
            elif isinstance(fate, int):
                self._answer(fate, {"Content-Type": "application/xml"}, BODIES.get(fate, b""))
            else:
                self._forward(body, cut=fate == "cut")

        def _forward(self, body: bytes, cut: bool) -> None:
            connection = http.client.HTTPConnection(host, timeout=60)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                self._answer(answer.status, dict(answer.getheaders()), content, cut)
            finally:
                connection.close()

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                skipped = ("content-length", "transfer-encoding", "connection", "date", "server")
                if name.lower() not in skipped:
                    self.send_header(name, value)
            length = len(content)
            if self.command == "HEAD":
                length = int(headers.get("Content-Length", headers.get("content-length", 0)))
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None: ...  # of clients that have given up

    server = Server(("127.0.0.1", 0), Handler)
    running = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
