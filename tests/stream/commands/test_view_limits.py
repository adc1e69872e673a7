"""What the view does about many clients, silent clients, large requests, and a Kafka that goes away."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import wraps
from typing import Any

import pytest

pytest.importorskip("faust", reason="the extra `view` is not installed")

from aiohttp import web

from stream.commands.view import answers, connections, outage
from stream.commands.view.connections import LIMITS, Connections, logger_of_server
from stream.commands.view.routes import Routes

LIST = b'{"items":[1],"scores":[0.5]}'


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Lists:
    """The table, with one list for everybody."""

    def __init__(self, value: bytes = LIST) -> None:
        self._value = value
        self.ready = asyncio.Event()
        self.ready.set()

    def key(self, user: str) -> bytes:
        return user.encode()

    def newest(self, _: bytes) -> bytes:
        return self._value

    received = 0

    @contextmanager
    def woken(self, _: bytes | None, __: asyncio.Event) -> Iterator[None]:
        yield

    @contextmanager
    def watched(self, _: bytes) -> Iterator["asyncio.Queue[bytes | None]"]:
        yield asyncio.Queue(1)


@asynccontextmanager
async def serving(value: bytes = LIST, middlewares: Sequence[Any] = (), **limits: Any) -> AsyncIterator[int]:
    """The port of a view without Kafka."""
    bounded = Connections()
    http = web.AppRunner(
        Routes(Lists(value)).application([bounded.middleware, *middlewares]),  # type: ignore[arg-type]
        access_log=None,
        shutdown_timeout=0.1,
        logger=logger_of_server(),
        **{**LIMITS, **limits},
    )
    await http.setup()
    assert http.server is not None
    listening = await bounded.listen(http.server, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await http.cleanup()


async def asked(port: int, request: bytes, size: int = 100_000) -> bytes:
    """What comes back until the server closes, or first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read(size)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (get("/ready"), 200),
        (get("/recommendations/ann"), 200),
        (get("/recommendations/" + "%41" * 255), 200),
        (get("/recommendations/" + "x" * 10_000), 400),
        (get("/ready", "X: " + "y" * 20_000), 400),
        (get("/ready", *(f"X{number}: y" for number in range(500))), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"no http at all\r\n\r\n", 400),
        (b"GET /\x1b[31m HTTP/1.1\r\n\r\n", 400),
    ],
)
@in_a_loop
async def test_a_request_beyond_a_limit_is_answered_and_not_logged(
    request_of: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as port:
        for _ in range(5):
            assert (await asked(port, request_of)).split()[1] == str(status).encode()
    assert caplog.messages == []


@in_a_loop
async def test_json_ends_with_a_line_end() -> None:
    async with serving() as port:
        for path in ("/ready", "/recommendations/ann"):
            assert (await asked(port, get(path))).endswith(b"}\n")


@in_a_loop
async def test_streams_are_limited_and_a_place_becomes_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_STREAMS", 2)
    monkeypatch.setattr(answers, "HEARTBEAT_S", 0.5)  # the next one notices that a reader is gone
    async with serving() as port:
        stream = get("/recommendations/ann/stream")
        open_ones = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(stream)
            await reader.readuntil(b"data: ")
            open_ones.append(writer)
        refused = await asked(port, stream)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 5" in refused
        assert (await asked(port, get("/recommendations/ann"))).startswith(b"HTTP/1.1 200 "), "lists are still served"
        open_ones[0].close()
        async with asyncio.timeout(20):
            while not (await asked(port, stream, 16)).startswith(b"HTTP/1.1 200 "):
                await asyncio.sleep(0.05)
        open_ones[1].close()


@pytest.mark.parametrize("said", [b"", b"GET /rea", b"GET /ready HTTP/1.1\r\nX: "])
@in_a_loop
async def test_silent_connections_make_room_for_others(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    async with serving(keepalive_timeout=600.0) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in silent:
            writer.write(said)
        for _ in range(10):
            assert (await asked(port, get("/ready"))).startswith(b"HTTP/1.1 200 ")
        # The last request took one place too.
        gone = [asyncio.create_task(reader.read()) for reader, _ in silent]
        async with asyncio.timeout(20):
            while sum(each.done() for each in gone) < len(silent) - 5:
                await asyncio.sleep(0.05)
        for each in gone:
            each.cancel()
        for _, writer in silent:
            writer.close()


@in_a_loop
async def test_a_connection_is_refused_when_all_others_have_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    async with serving() as port:
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in streams:
            writer.write(get("/recommendations/ann/stream"))
            await reader.readuntil(b"\r\n\r\n")
        assert (await asked(port, get("/ready"))).startswith(b"HTTP/1.1 503 ")
        for _, writer in streams:
            writer.close()


@in_a_loop
async def test_a_connection_that_says_nothing_is_closed_in_time() -> None:
    async with serving(keepalive_timeout=0.2) as port:
        assert await asked(port, b"") == b""
        assert await asked(port, b"GET /ready HTTP/1.1\r\nX: ") == b""


@in_a_loop
async def test_a_reader_of_a_stream_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "READS_WITHIN_S", 0.2)
    monkeypatch.setattr(answers, "HEARTBEAT_S", 0.001)
    monkeypatch.setattr(Routes, "_list_event", lambda *_: b"x" * 8_000_000)
    monkeypatch.setattr(answers, "MAX_STREAMS", 1)
    async with serving() as port:
        with closing(socket.create_connection(("127.0.0.1", port))) as reader:
            reader.sendall(get("/recommendations/ann/stream"))
            await asyncio.sleep(0.1)
            async with asyncio.timeout(20):
                while not (await asked(port, get("/recommendations/bob/stream"), 16)).startswith(b"HTTP/1.1 200 "):
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("value", [b"", b"\xc1", b"{", b"[]", b"\xff" * 50, b"{" * 100_000, b"\x91" * 100_000])
@in_a_loop
async def test_a_list_that_cannot_be_read_is_nobodys_and_is_said_once(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(value) as port:
        for _ in range(10):
            assert (await asked(port, get("/recommendations/ann"))).startswith(b"HTTP/1.1 404 ")
        assert b"event: none" in await asked(port, get("/recommendations/ann/stream"), 400)
    assert [message.partition(" bytes=")[0] for message in caplog.messages] == ["list unreadable"]


@in_a_loop
async def test_an_outage_is_said_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers = [True, False, False, False, True, True, False, True]

    async def next_answer() -> bool:
        if not answers:
            raise asyncio.CancelledError
        return answers.pop(0)

    with pytest.raises(asyncio.CancelledError):
        await outage.watch(next_answer, every_s=0.0)
    away = "waiting for Kafka: it does not answer; the lists that are here are served meanwhile"
    assert caplog.messages == [away, "Kafka answers again after_s=0", away, "Kafka answers again after_s=0"]
