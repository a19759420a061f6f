"""An OpenAI-compatible endpoint on this machine that answers as a test wants, over real HTTP."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from im_resources.judge import Endpoint
from im_resources.study import JudgeSettings

KEY = "sk-secret-0123456789"


@dataclass
class Sent:
    """What goes back for one request."""

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


def says(text: Any, finish_reason: str = "stop") -> Sent:
    """A chat completion with this text."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    head = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge"}
    return Sent(json.dumps({**head, "choices": [choice]}))


def refuses(status: int, message: str = "no", **headers: str) -> Sent:
    """An error; headers are written with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Sent(json.dumps({"error": {"message": message}}), status, named)


@dataclass
class Server:
    """The running endpoint and all that it was sent."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Sent]) -> Iterator[Server]:
    """Serve ``answer(request, number)`` for every POST, numbers from 1 in order of arrival."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.bodies.append(body)
                server.keys.append(self.headers["Authorization"].removeprefix("Bearer "))
                number = len(server.bodies)
            sent = answer(body, number)
            time.sleep(sent.delay)
            content = sent.body.encode()
            try:
                self.send_response(sent.status)
                for name, value in {"Content-Type": "application/json", **sent.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # whoever asked did not wait

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def in_turn(*replies: Sent) -> Callable[[dict[str, Any], int], Sent]:
    """The replies one after the other, the last for ever."""
    return lambda _, number: replies[min(number, len(replies)) - 1]


def longer_wins(body: dict[str, Any], number: int = 0) -> Sent:
    """A judge without position bias: it reads the prompt and prefers the longer answer."""
    a, b = answers_in(body)
    return says("Longer is better.\n" + ("A" if len(a) > len(b) else "B" if a != b else "TIE"))


def rates(body: dict[str, Any], number: int = 0) -> Sent:
    """A judge that gives what the response says that it is worth."""
    [prompt] = [m["content"] for m in body["messages"][:2] if m["role"] == "user"]
    found = re.search(r"<response-\w+>\n.*?[Ww]orth ([0-9.]+)\.", prompt, re.DOTALL)
    return says(f"As it says.\nRating: {found[1]}" if found else "It says nothing.")


def answers_in(body: dict[str, Any]) -> tuple[str, str]:
    """The two answers that a request is about, in its order."""
    [prompt] = [m["content"] for m in body["messages"][:2] if m["role"] == "user"]
    found = re.findall(r"<answer_([AB])-(\w+)>\n(.*?)\n</answer_\1-\2>", prompt, re.DOTALL)
    assert [letter for letter, _, _ in found] == ["A", "B"]
    return found[0][2], found[1][2]


def settings(url: str, **changes: Any) -> JudgeSettings:
    """Settings of a judge at this endpoint."""
    given = {"backend": "openai", "base_url": url, "model": "judge", "retries": 2, "timeout": 20.0}
    return JudgeSettings.model_validate(given | changes)


@contextmanager
def endpoint(url: str, **changes: Any) -> Iterator[Endpoint]:
    """The client under test."""
    client = Endpoint(settings(url, **changes))
    try:
        yield client
    finally:
        client.close()
