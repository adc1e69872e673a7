"""How many clients the view serves at a time, and what it does about those that hold a connection and say nothing."""

import asyncio
import logging
import resource
from contextlib import suppress
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

MAX_CONNECTIONS: Final = 1200
SAYS_SOMETHING_WITHIN_S: Final = 15.0
"""A connection without a whole request for so long is closed, at its start and between two requests."""
MAX_LINE_BYTES: Final = 8190
"""Of a request's first line, and of a header. A user id has 255 bytes, which are at most 765 in a path."""
MAX_HEADERS: Final = 100
_OPEN_FILES: Final = 65_536
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"

LIMITS: Final[dict[str, Any]] = {
    "max_line_size": MAX_LINE_BYTES,
    "max_field_size": MAX_LINE_BYTES,
    "max_headers": MAX_HEADERS,
    "keepalive_timeout": SAYS_SOMETHING_WITHIN_S,
}
"""For aiohttp's server."""


class Connections:
    """Makes the protocol of each new connection. When there are too many, the oldest without a request is closed; when
    all have one, the new connection is refused.
    """

    def __init__(self) -> None:
        self._server: web.Server | None = None
        self._busy: Final[set[asyncio.BaseProtocol]] = set()

    @property
    def middleware(self) -> Any:
        """Notes which connections have a request."""

        @web.middleware
        async def noted(request: web.Request, handler: Any) -> Any:
            self._busy.add(request.protocol)
            try:
                return await handler(request)
            finally:
                self._busy.discard(request.protocol)

        return noted

    async def listen(self, server: web.Server, host: str, port: int) -> asyncio.Server:
        """Raises OSError when it cannot listen there."""
        self._server = server
        _allow_open_files()
        return await asyncio.get_running_loop().create_server(self._new, host, port)

    def _new(self) -> asyncio.BaseProtocol:
        assert self._server is not None
        there = [each for each in self._server.connections if each.transport is not None]
        if len(there) >= MAX_CONNECTIONS:
            idle = next((each for each in there if each not in self._busy), None)
            if idle is None:
                return _Refusal()
            idle.force_close()
        return self._server()


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_FULL)
        transport.close()


class WithoutBadRequests(logging.Filter):
    """aiohttp logs a traceback for each request that is no HTTP or exceeds a limit. The client has its answer: 400."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def logger_of_server() -> logging.Logger:
    """The log of aiohttp's server, without what clients do wrong."""
    logger = logging.getLogger("aiohttp.server")
    if not logger.filters:
        logger.addFilter(WithoutBadRequests())
    return logger


def _allow_open_files() -> None:
    """A shell allows 1024 open files by default, and the system more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
