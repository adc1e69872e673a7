"""What the view answers over HTTP: a list, the stream of a user's lists, and a page that shows it."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from stream.commands.view.faust_app import LatestLists
from stream.commands.view.page import PAGE

logger = logging.getLogger(__name__)

HEARTBEAT_S: Final = 15.0
SAYS_UNREADABLE_EVERY_S: Final = 60.0
MAX_STREAMS: Final = 1000
READS_WITHIN_S: Final = 30.0
"""A reader of a stream that takes nothing for so long is cut off."""


class Routes:
    """The HTTP handlers; they read the table and nothing else."""

    def __init__(self, lists: LatestLists) -> None:
        self._lists: Final = lists
        self._streams = 0
        self._unreadable_said_at = -math.inf

    def application(self, middlewares: Sequence[Any] = ()) -> web.Application:
        routes = web.Application(middlewares=middlewares)
        user = "/recommendations/{user}"
        routes.add_routes(
            [
                web.get("/", _page),
                web.get("/ready", self._ready),
                web.get(user, self._get),
                web.get(f"{user}/stream", self._stream),
            ]
        )
        return routes

    async def _ready(self, _: web.Request) -> web.Response:
        return _json({"ready": self._lists.ready.is_set()}, 200 if self._lists.ready.is_set() else 503)

    async def _get(self, request: web.Request) -> web.Response:
        if not self._lists.ready.is_set():
            return _json({"error": "not ready: still reading the topic"}, 503)
        user = request.match_info["user"]
        try:
            found = self._read(self._lists.newest(self._lists.key(user)))
        except ValueError:  # no key is this user, so there can be no list
            found = None
        return (
            _json({"error": "no recommendations for this user", "user": user}, 404)
            if found is None
            else _json({"user": user, **found})
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the present list, then each new one; a reader that is too slow for all of them gets the
        newest.
        """
        if not self._lists.ready.is_set():
            return await self._get(request)
        if self._streams >= MAX_STREAMS:
            error = {
                "error": f"{MAX_STREAMS} streams are open, which is the most: try again later, or ask another view"
            }
            return _json(error, 503, {"Retry-After": "5"})
        self._streams += 1
        try:
            return await self._followed(request)
        finally:
            self._streams -= 1

    async def _followed(self, request: web.Request) -> web.StreamResponse:
        user = request.match_info["user"]
        try:
            key = self._lists.key(user)
        except ValueError:
            return await self._get(request)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        with self._lists.watched(key) as newest:
            try:
                await response.prepare(request)
                await _written(response, self._event(user, self._lists.newest(key)))
                while True:
                    try:
                        async with asyncio.timeout(HEARTBEAT_S):
                            event = self._event(user, await newest.get())
                    except TimeoutError:
                        event = b": heartbeat\n\n"
                    await _written(response, event)
            except ConnectionResetError:
                return response
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
                return response

    def _event(self, user: str, value: bytes | None) -> bytes:
        found = self._read(value)
        if found is None:
            return b"event: none\ndata: " + msgspec.json.encode({"user": user}) + b"\n\n"
        return b"data: " + msgspec.json.encode({"user": user, **found}) + b"\n\n"

    def _read(self, value: bytes | None) -> dict[str, Any] | None:
        """A list; None when it was withdrawn or cannot be read. Who asks for it again and again fills no log."""
        try:
            return _decoded(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            now = time.monotonic()
            if now - self._unreadable_said_at >= SAYS_UNREADABLE_EVERY_S:
                self._unreadable_said_at = now
                logger.warning("list unreadable bytes=%d reason=%s", len(value or b""), error)
            return None


async def _written(response: web.StreamResponse, event: bytes) -> None:
    """Raises TimeoutError when the reader takes nothing."""
    async with asyncio.timeout(READS_WITHIN_S):
        await response.write(event)


def _decoded(value: bytes | None) -> dict[str, Any] | None:
    """A list, written as MessagePack or JSON; None when it was withdrawn."""
    if value is None:
        return None
    decode = msgspec.json.decode if value[:1] in (b"{", b" ", b"\t", b"\r", b"\n") else msgspec.msgpack.decode
    return decode(value, type=dict[str, Any])


def _json(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value) + b"\n",
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")
