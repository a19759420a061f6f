"""A webhook on this machine that keeps what it is sent, and answers as a test wants."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "T000-B000-XXXX"


@dataclass
class Receiver:
    """Its address, what it has taken, and how it answers from now on."""

    url: str = ""
    taken: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    status: int = 200
    delay: float = 0.0

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return [message["alert"] for message in self.taken]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A webhook with a secret in its address."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.asked += 1
            time.sleep(receiver.delay)
            if receiver.status == 200 and self.path == f"/services/{SECRET}":
                receiver.taken.append(body)
            self.send_response(receiver.status)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/services/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
