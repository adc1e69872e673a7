"""Notes when a client lost a connection that was up.

librdkafka then sends every request without an answer again, on its next connection, and tells its caller nothing. Only
its log does.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

_FAILED: Final = "FAIL"
_WAS_UP: Final = "in state UP"
"""A line about a connection ends with its state. In other states it has not carried a request of a transaction."""


class WatchedLog:
    """The logger to give to a client. It passes everything on, and is called in the client's `poll`."""

    def __init__(self, logger: logging.Logger, lost: Callable[[str], None]) -> None:
        """`lost` is called with the client's words."""
        self._logger = logger
        self._lost = lost

    def log(self, level: int, form: str, *given: Any) -> None:
        """As `logging.Logger.log`. The client gives the kind of a line, its own name, and the line."""
        self._logger.log(level, form, *given)
        if level > logging.DEBUG and given[:1] == (_FAILED,) and _WAS_UP in str(given[-1]):
            self._lost(str(given[-1]))
