"""A webhook's address is a secret, and a message reaches it or says why not."""

import socket
import threading

import pytest

from im_resources.webhook import TRIES, Webhook, WebhookError
from tests.webhook_for_tests import SECRET, receiving


def test_a_message_arrives_as_json() -> None:
    with receiving() as receiver:
        Webhook(receiver.url, 5).post({"text": "Größe ≥ 2"})
    assert receiver.taken == [{"text": "Größe ≥ 2"}]


@pytest.mark.parametrize(
    ("status", "asked", "passing"),
    [(500, TRIES, True), (404, 1, False), (429, TRIES, True), (302, 1, False)],
)
def test_only_a_passing_failure_is_tried_again(status: int, asked: int, passing: bool) -> None:
    with receiving() as receiver:
        receiver.status = status
        with pytest.raises(WebhookError, match=str(status)) as raised:
            Webhook(receiver.url, 5).post({"text": "x"})
    assert receiver.asked == asked
    assert raised.value.passing is passing
    assert SECRET not in str(raised.value)


def test_a_dead_and_a_slow_webhook_say_so_without_the_address() -> None:
    with socket.socket() as unused:  # bound and not listening: refused
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(WebhookError, match="ConnectionRefusedError") as dead:
            Webhook(f"http://127.0.0.1:{port}/{SECRET}", 1).post({"text": "x"})
    with receiving() as receiver:
        receiver.delay = 1
        with pytest.raises(WebhookError, match="cannot be reached") as slow:
            Webhook(receiver.url, 0.1).post({"text": "x"})
    for raised in (dead, slow):
        assert raised.value.passing
        assert SECRET not in repr(raised.getrepr(style="long"))


def test_what_speaks_no_http_is_no_surprise() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            for _ in range(TRIES):
                connection, _address = server.accept()
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(WebhookError, match="no HTTP answer"):
            Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", 5).post({"text": "x"})
        thread.join()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", f"ftp://h/{SECRET}", SECRET, "http://", "http://[x"]
)
def test_an_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(WebhookError, match="not an http") as raised:
        Webhook(url, 5)
    assert SECRET not in str(raised.value)
    assert not raised.value.passing
