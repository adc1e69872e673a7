"""What the proxy makes of a connection, seen from both ends."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.crash.ports import free_ports
from tests.crash.proxy import Proxy
from tests.processes import wait_until


class Echo(threading.Thread):
    """Answers every connection with what it says, and counts the bytes."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", port))
        self.heard = 0

    def run(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self.server.accept()
                threading.Thread(target=self._answer, args=(accepted,), daemon=True).start()

    def _answer(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError):
            while said := accepted.recv(1000):
                self.heard += len(said)
                accepted.sendall(said)

    def close(self) -> None:
        # Closing alone leaves `accept` waiting.
        with suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.join(5)


@pytest.fixture
def echo() -> Iterator[Echo]:
    started = Echo(free_ports(1, random.Random(1))[0])
    started.start()
    yield started
    started.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(free_ports(1, random.Random(2))[0], echo.server.getsockname()[1]) as started:
        yield started


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def told(client: socket.socket, said: bytes) -> bytes:
    client.sendall(said)
    heard = b""
    while len(heard) < len(said) and (more := client.recv(1000)):
        heard += more
    return heard


def test_bytes_pass_in_both_directions(proxy: Proxy) -> None:
    said = random.Random(0).randbytes(300_000)
    with connected(proxy) as client:
        sending = threading.Thread(target=client.sendall, args=(said,))
        sending.start()
        heard = b""
        while len(heard) < len(said):
            heard += client.recv(100_000)
        sending.join()
    assert heard == said


def test_an_end_that_closes_closes_the_other(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert told(client, b"a") == b"a"
        assert proxy.connections == 1
    wait_until(lambda: proxy.connections == 0, 5, "the proxy lets go")


def test_a_cut_network_refuses_connections_until_it_is_healed(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert told(client, b"a") == b"a"
        proxy.cut()
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
    proxy.heal()
    with connected(proxy) as client:
        assert told(client, b"b") == b"b"


def test_a_reset_is_a_reset_and_new_connections_are_good(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert told(client, b"a") == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connected(proxy) as client:
        assert told(client, b"b") == b"b"


def test_a_delay_is_added_in_each_direction_and_keeps_the_order(proxy: Proxy) -> None:
    proxy.delay(0.1)
    with connected(proxy) as client:
        began = time.monotonic()
        client.sendall(b"a")
        time.sleep(0.01)  # so that they are chunks of their own
        client.sendall(b"bc")
        heard = b""
        while len(heard) < 3:
            heard += client.recv(3)
        assert heard == b"abc"
        assert 0.2 <= time.monotonic() - began < 1.0
        proxy.heal()
        began = time.monotonic()
        assert told(client, b"d") == b"d"
        assert time.monotonic() - began < 0.15


def test_a_stalled_network_swallows_silently_and_closes_what_lacks_bytes(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy) as quiet, connected(proxy) as spoken:
        assert told(quiet, b"a") == told(spoken, b"a") == b"a"
        proxy.stall()
        with connected(proxy) as late:
            for client in (spoken, late):
                client.sendall(b"lost")
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(1)
            proxy.heal()
            for client in (spoken, late):
                client.settimeout(5)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        assert told(quiet, b"b") == b"b"
    assert echo.heard == 3
