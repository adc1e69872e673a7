"""The end of a transaction that the network keeps, and delivers late (librdkafka #5423)."""

import asyncio
import threading
from contextlib import suppress
from typing import Final

from tests.crash.requests import END_TXN, PRODUCE, Request

_ARRIVES_S: Final = 0.1
"""How long the broker has for the records that were let through before the late end."""
_ANSWERS_WITHIN_S: Final = 1.0
_KEEPS_S: Final = 15.0
_ERROR_AT: Final = 8
"""In the answer to EndTxn: after the correlation id and the throttle time."""


class Hold:
    """One EndTxn of one client.

    The client's connection is reset as soon as the request comes. The connection to the broker stays. The client sends
    the same request again on a new one, and it is answered. When the first records of the client's next transaction
    have passed, the kept request is delivered, and the client's other records wait until `let_go`.
    """

    def __init__(self, client: str) -> None:
        """`client`: its `client.id`."""
        self.delivered: Final = threading.Event()
        self.answer: int | None = None
        """The error code with which Kafka answered the late request; 0: the transaction was ended."""
        self._client = client.encode()
        self._kept: bytes | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._delivering = False
        self._let_go = asyncio.Event()

    def keeps(self, request: Request) -> bool:
        """Whether this is the request to keep."""
        return self._kept is None and request.api == END_TXN and request.client == self._client

    def is_next(self, request: Request) -> bool:
        """Whether the client's next transaction writes its first records."""
        mine = request.api == PRODUCE and request.client == self._client
        return mine and self._kept is not None and not self._delivering

    def keep(self, sent: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`reader`, `writer`: the connection to the broker, which is the hold's from now on."""
        self._kept, self._reader, self._writer = sent, reader, writer

    def begin_to_deliver(self) -> None:
        self._delivering = True

    async def deliver(self) -> None:
        """Deliver what was kept, and return after `let_go`."""
        assert self._kept is not None
        assert self._reader is not None
        assert self._writer is not None
        await asyncio.sleep(_ARRIVES_S)
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            self._writer.write(self._kept)
            await self._writer.drain()
            length = await asyncio.wait_for(self._reader.readexactly(4), _ANSWERS_WITHIN_S)
            answer = await asyncio.wait_for(self._reader.readexactly(int.from_bytes(length)), _ANSWERS_WITHIN_S)
            self.answer = int.from_bytes(answer[_ERROR_AT : _ERROR_AT + 2])
        self.delivered.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._let_go.wait(), _KEEPS_S)

    async def let_go(self) -> None:
        """Let the client's records pass, and close the kept connection."""
        self._let_go.set()
        if self._writer is not None:
            self._writer.transport.abort()
