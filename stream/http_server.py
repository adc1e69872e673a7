"""A small HTTP server that goes on answering whatever its clients do.

Each connection has a thread of its own. A client that sends nothing, sends slowly or does not read its answer holds one
of them, for a bounded time; when there are too many connections, the oldest is cut. So a probe is always answered, and
the server never keeps the process from ending.
"""

import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final, NamedTuple

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 32
ENDS_WITHIN_S: Final = 10.0
"""How long a connection may last, from its first byte to the last of the answer."""
_LOOKS_EVERY_S: Final = 0.1


class Answer(NamedTuple):
    """What a path answers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Answers = Callable[[str, str], Answer]
"""Path without its query, and the request's Accept header → the answer."""


class HttpServer(ThreadingHTTPServer):
    """Answers GET and HEAD. Run `serve_forever` in a thread; `stop` ends it within a fraction of a second."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        """Raises OSError or OverflowError when it cannot listen there."""
        self.answers: Final = answers
        self._began: Final[dict[socket.socket, float]] = {}
        """Open connection → when it began; the oldest first. Threads remove theirs, the accepting thread adds."""
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Without the base class's look for the host's full name, which may wait for a name server.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def serve(self) -> None:
        self.serve_forever(poll_interval=_LOOKS_EVERY_S)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._began):
            _cut(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        open_now = list(self._began)
        for connection in open_now[: max(0, len(open_now) - MAX_CONNECTIONS + 1)]:
            self._began.pop(connection, None)
            _cut(connection)
        self._began[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called by `serve_forever` again and again, between connections."""
        for connection, began in list(self._began.items()):
            if time.monotonic() - began > ENDS_WITHIN_S:
                self._began.pop(connection, None)
                _cut(connection)

    def shutdown_request(self, request: Any) -> None:
        self._began.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the base class calls it
        """A client that went away, or was cut off, in the middle: no reason for a traceback."""
        logger.debug("connection ended client=%s", client_address, exc_info=True)


def _cut(connection: socket.socket) -> None:
    """Wake the thread that waits for this connection; it ends by that."""
    with suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    timeout = ENDS_WITHIN_S

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        given = self.server.answers(self.path.partition("?")[0], self.headers.get("Accept", ""))
        self.send_response(given.status)
        self.send_header("Content-Type", given.content_type)
        self.send_header("Content-Length", str(len(given.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(given.body)

    def version_string(self) -> str:
        return "rec2pm"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  # the name in the base class
        """A probe every few seconds is not worth a line."""
