"""Calls of a command's transactional producer, repeated while Kafka is away."""

import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError, KafkaException

CALL_S: Final = 30.0
"""How long one call may wait."""
_PATIENCE_S: Final = 60.0
_AGAIN_AFTER_S: Final = 0.1


def until_done(call: Callable[[], None]) -> None:
    """Call again after a retriable error; the call then continues where it was.

    Raises:
        KafkaException: it failed for good, or Kafka has been away for a minute.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return call()
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if not reason.retriable() or reason.fatal() or reason.txn_requires_abort() or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_AFTER_S)
