"""What every answer of the view has in common: JSON, and server-sent events to readers who may be slow."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec
from aiohttp import web

HEARTBEAT_S: Final = 15.0
MAX_STREAMS: Final = 1000
READS_WITHIN_S: Final = 30.0
"""A reader of a stream that takes nothing for so long is cut off."""


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value) + b"\n",
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def event(value: Any, name: str = "") -> bytes:
    """One event; without a name it is a `message`."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + msgspec.json.encode(value) + b"\n\n"


class Streams:
    """The open streams of a process."""

    def __init__(self) -> None:
        self._open = 0

    async def answer(self, request: web.Request, events: AsyncGenerator[bytes, None]) -> web.StreamResponse:
        """Server-sent events until the reader leaves, or takes nothing; 503 if there are too many streams."""
        if self._open >= MAX_STREAMS:
            error = f"{MAX_STREAMS} streams are open, which is the most: try again later, or ask another view"
            return as_json({"error": error}, 503, {"Retry-After": "5"})
        self._open += 1
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        try:
            await response.prepare(request)
            async with aclosing(events):
                async for each in events:
                    async with asyncio.timeout(READS_WITHIN_S):
                        await response.write(each)
        except ConnectionResetError:
            return response
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            return response
        finally:
            self._open -= 1
        return response
