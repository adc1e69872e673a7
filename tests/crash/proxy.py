"""A TCP proxy that can act as a bad network: cut, reset, delay or stall connections, or keep a request for later.

It runs on its own thread with an event loop. Any thread may call a method; its effect is complete when it returns.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from tests.crash.hold import Hold
from tests.crash.requests import Requests

_CHUNK = 1 << 16
_CLOSE_WITH_RST = struct.pack("ii", 1, 0)
_ANSWERS_WITHIN_S = 10.0

T = TypeVar("T")


class Proxy:
    """Listens on 127.0.0.1:`port` and passes everything on to 127.0.0.1:`target`."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._latency_s = 0.0
        self._stalled = False
        self._hold: Hold | None = None
        self._swallowed: set[_Connection] = set()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._shut(rst=False))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWERS_WITHIN_S)
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def cut(self) -> None:
        """Close every connection, and refuse new ones until `heal`."""
        self._do(self._shut(rst=False))

    def reset(self) -> None:
        """Close every connection with RST, once."""
        self._do(self._drop(rst=True))

    def delay(self, seconds: float) -> None:
        """Delay every chunk by this time, in both directions, until `heal`; the order stays."""
        self._do(self._set(latency_s=seconds))

    def stall(self) -> None:
        """Accept connections and drop all bytes, silently. `heal` closes the connections that lost bytes."""
        self._do(self._set(stalled=True))

    def hold(self, client: str) -> Hold:
        """Keep the next EndTxn of the client with this id, and deliver it within its next transaction."""
        hold = Hold(client)
        self._do(self._set_hold(hold))
        return hold

    def let_go(self, hold: Hold) -> None:
        """End a hold, whether it came to anything or not."""
        self._do(self._set_hold(None))
        self._do(hold.let_go())

    def heal(self) -> None:
        """A good network again."""
        self._do(self._heal())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWERS_WITHIN_S)

    async def _set(self, *, latency_s: float | None = None, stalled: bool | None = None) -> None:
        self._latency_s = self._latency_s if latency_s is None else latency_s
        self._stalled = self._stalled if stalled is None else stalled

    async def _set_hold(self, hold: Hold | None) -> None:
        self._hold = hold

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port, limit=_CHUNK)

    async def _shut(self, *, rst: bool) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop(rst=rst)

    async def _drop(self, *, rst: bool) -> None:
        dropped = set(self._connections)
        for connection in dropped:
            connection.close(rst=rst)
        while dropped & self._connections:  # does not wait for clients that reconnect at once
            await asyncio.sleep(0.001)

    async def _heal(self) -> None:
        self._latency_s, self._stalled = 0.0, False
        for connection in list(self._swallowed):
            connection.close(rst=True)
        self._swallowed.clear()
        await self._listen()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection([writer])
        self._connections.add(connection)
        try:
            await self._serve(connection, reader, writer)
        except OSError:
            pass  # the other end went away, or the target is not there: the connection ends, as it would without a proxy
        finally:
            connection.close(rst=False)
            self._connections.discard(connection)

    async def _serve(
        self, connection: "_Connection", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        beyond, to_target = await asyncio.open_connection("127.0.0.1", self._target, limit=_CHUNK)
        if connection.closed:
            to_target.transport.abort()
            return
        connection.writers.append(to_target)
        there = asyncio.ensure_future(self._pump(connection, reader, to_target, beyond))
        back = asyncio.ensure_future(self._pump(connection, beyond, writer))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in (there, back):
                pump.cancel()
                with suppress(OSError, asyncio.CancelledError):
                    await pump

    async def _pump(
        self,
        connection: "_Connection",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader | None = None,
    ) -> None:
        """Pass chunks on, each when it is due.

        Args:
            connection: the one that both directions belong to.
            reader, writer: where chunks come from, and where they go.
            answers: what the target answers. Only with it, the chunks are a client's requests, which `hold` may keep.
        """
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.ensure_future(_send(due, writer, self._loop.time))
        requests = Requests()
        try:
            while chunk := await reader.read(_CHUNK):
                if self._stalled:
                    self._swallowed.add(connection)
                    continue
                found = list(requests.found(chunk))
                if answers is not None and (hold := self._hold) is not None:
                    if (kept := next(filter(hold.keeps, found), None)) is not None:
                        due.put_nowait((0.0, chunk[: kept.start]))
                        await due.join()
                        hold.keep(chunk[kept.start :], answers, writer)
                        connection.writers.remove(writer)
                        connection.close(rst=True)
                        return
                    if (first := next(filter(hold.is_next, found), None)) is not None:
                        hold.begin_to_deliver()
                        while len(chunk) < first.end and (more := await reader.read(_CHUNK)):
                            list(requests.found(more))
                            chunk += more
                        due.put_nowait((0.0, chunk[: first.end]))
                        await due.join()
                        await hold.deliver()
                        chunk = chunk[first.end :]
                due.put_nowait((self._loop.time() + self._latency_s, chunk))
                if sending.done():
                    break
            await asyncio.wait_for(due.join(), timeout=1.0 + self._latency_s)
        except TimeoutError:
            pass
        finally:
            sending.cancel()
            with suppress(OSError, asyncio.CancelledError):
                await sending


async def _send(
    due: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter, now: Callable[[], float]
) -> None:
    while True:
        at, chunk = await due.get()
        if (early := at - now()) > 0:
            await asyncio.sleep(early)
        writer.write(chunk)
        await writer.drain()
        due.task_done()


class _Connection:
    """A client's connection and, once it is made, the one to the target that belongs to it."""

    def __init__(self, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.closed = False

    def close(self, *, rst: bool) -> None:
        self.closed = True
        for writer in self.writers:
            opened = writer.get_extra_info("socket")
            if rst and opened is not None and opened.fileno() >= 0:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_WITH_RST)
            writer.transport.abort()
