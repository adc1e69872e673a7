"""The server of probes and metrics, and clients that would keep it busy."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from stream import http_server
from stream.http_server import MAX_CONNECTIONS, Answer, HttpServer
from tests.processes import wait_until

ANSWERED_WITHIN_S = 5.0


@contextmanager
def serving(body: bytes = b"fine\n") -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1", 0, lambda path, _: Answer(200 if path == "/here" else 404, body))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        began = time.monotonic()
        server.stop()
        thread.join(5)
        assert not thread.is_alive()
        assert time.monotonic() - began < ANSWERED_WITHIN_S


def asked(server: HttpServer, path: str = "/here", method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=ANSWERED_WITHIN_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def connected(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=5)


def holds_nothing(_: socket.socket) -> None:
    """The client has connected, and says nothing."""


def holds_half_a_line(client: socket.socket) -> None:
    client.sendall(b"GET /he")


def holds_half_the_headers(client: socket.socket) -> None:
    client.sendall(b"GET /here HTTP/1.1\r\nHost: x\r\nX-Slow: ")


def reads_nothing(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    client.sendall(b"GET /here HTTP/1.1\r\n\r\n")


HOLDS = [holds_nothing, holds_half_a_line, holds_half_the_headers, reads_nothing]


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("clients", [1, MAX_CONNECTIONS, 4 * MAX_CONNECTIONS])
def test_it_answers_and_stops_whatever_clients_hold(hold: Callable[[socket.socket], None], clients: int) -> None:
    threads_before = threading.active_count()
    with ExitStack() as held, serving(b"x" * 4_000_000) as server:
        for _ in range(clients):
            client = held.enter_context(connected(server))
            try:
                hold(client)
            except ConnectionError:
                continue  # one of the oldest, cut by now
        for _ in range(5):
            assert asked(server)[0] == 200
        wait_until(
            lambda: threading.active_count() - threads_before <= MAX_CONNECTIONS + 2, 10, "cut connections have ended"
        )


def test_a_connection_that_goes_on_sending_slowly_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "ENDS_WITHIN_S", 0.5)
    with serving() as server, connected(server) as client:

        def is_cut() -> bool:
            try:
                client.sendall(b"G")
            except ConnectionError:
                return True
            return False

        wait_until(is_cut, 10, "the connection ends")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/here?a=b", "GET", 200),
        ("/here", "HEAD", 200),
        ("/there", "GET", 404),
        ("/here", "POST", 501),
        ("/" + "x" * 100_000, "GET", 414),
    ],
)
def test_requests_are_answered_by_path(path: str, method: str, status: int) -> None:
    with serving() as server:
        assert asked(server, path, method)[0] == status


def test_a_client_that_goes_away_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(b"x" * 4_000_000) as server:
        for _ in range(5):
            with connected(server) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                client.sendall(b"GET /here HTTP/1.1\r\n\r\n")
        assert asked(server)[0] == 200
    assert capfd.readouterr() == ("", "")
