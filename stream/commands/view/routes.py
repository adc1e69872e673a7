"""What the view answers over HTTP: a list, the stream of a user's lists, and a page that shows it."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from stream.commands.view.faust_app import LatestLists
from stream.commands.view.page import PAGE

logger = logging.getLogger(__name__)

HEARTBEAT_S: Final = 15.0


class Routes:
    """The HTTP handlers; they read the table and nothing else."""

    def __init__(self, lists: LatestLists) -> None:
        self._lists: Final = lists

    def application(self) -> web.Application:
        routes = web.Application()
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
            found = _decoded(self._lists.newest(self._lists.key(user)))
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
                await response.write(_event(user, self._lists.newest(key)))
                while True:
                    try:
                        async with asyncio.timeout(HEARTBEAT_S):
                            event = _event(user, await newest.get())
                    except TimeoutError:
                        event = b": heartbeat\n\n"
                    await response.write(event)
            except ConnectionResetError:
                return response


def _decoded(value: bytes | None) -> dict[str, Any] | None:
    """A list, written as MessagePack or JSON; None when it was withdrawn or cannot be read."""
    if value is None:
        return None
    decode = msgspec.json.decode if value[:1] in (b"{", b" ", b"\t", b"\r", b"\n") else msgspec.msgpack.decode
    try:
        return decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        logger.warning("list unreadable bytes=%d reason=%s", len(value), error)
        return None


def _event(user: str, value: bytes | None) -> bytes:
    found = _decoded(value)
    if found is None:
        return b"event: none\ndata: " + msgspec.json.encode({"user": user}) + b"\n\n"
    return b"data: " + msgspec.json.encode({"user": user, **found}) + b"\n\n"


def _json(value: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")
