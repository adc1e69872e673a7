"""Where Kafka's requests begin in what a client sends, and which they are.

A request is its length (4 bytes), the API's key and version (2 each), a correlation id (4), the client's id (2 bytes of
length, then text), and more that is not read here.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

PRODUCE: Final = 0
END_TXN: Final = 26
_LENGTH: Final = 4
_BEFORE_CLIENT: Final = 14


class Request(NamedTuple):
    """The beginning of a request. `api` is None where the bytes at hand do not tell."""

    start: int
    """Its first byte in the chunk."""
    end: int
    """The byte after it, which may be in a later chunk."""
    api: int | None
    client: bytes


class Requests:
    """Follows one connection. It holds back nothing."""

    def __init__(self) -> None:
        self._left = 0
        """Bytes that the present request still has."""
        self._length = b""
        """The first bytes of a length that a chunk cut in two."""

    def found(self, chunk: bytes) -> Iterator[Request]:
        """The requests that begin in a chunk. A request whose length two chunks share is left out."""
        at = self._left
        if self._length:
            more = _LENGTH - len(self._length)
            self._length += chunk[:more]
            if len(self._length) < _LENGTH:
                return
            at, self._length = more + int.from_bytes(self._length), b""
        while at + _LENGTH <= len(chunk):
            end = at + _LENGTH + int.from_bytes(chunk[at : at + _LENGTH])
            yield self._request(chunk, at, end)
            at = end
        self._left, self._length = max(0, at - len(chunk)), chunk[at:]

    @staticmethod
    def _request(chunk: bytes, at: int, end: int) -> Request:
        known = chunk[at : min(end, len(chunk))]
        if len(known) < _BEFORE_CLIENT:
            return Request(at, end, None, b"")
        length = int.from_bytes(known[12:_BEFORE_CLIENT])
        client = known[_BEFORE_CLIENT : _BEFORE_CLIENT + length]
        return Request(at, end, int.from_bytes(known[4:6]), client)
