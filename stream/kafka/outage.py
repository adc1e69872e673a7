"""Notes when Kafka did not answer, and paces the waits for it."""

import logging
import math
import time
from collections.abc import Callable

from confluent_kafka import KafkaError

logger = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0
_PAUSE_S = 0.1


class Outage:
    """Shared by all code that calls Kafka."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.stopping: Callable[[], bool] = lambda: False
        """True when the worker must stop, and wait no longer."""
        self.waited_at = self._logged_at = -math.inf
        """When Kafka last failed to answer."""

    def note(self) -> None:
        """Note that Kafka does not answer now."""
        self.waited_at = self.clock()

    def wait(self, call: str, reason: KafkaError) -> None:
        """Log now and then that a call waits for Kafka, and sleep a moment."""
        self.note()
        if self.waited_at - self._logged_at > _LOG_EVERY_S:
            self._logged_at = self.waited_at
            logger.warning("waiting for Kafka call=%s reason=%s", call, reason)
        time.sleep(_PAUSE_S)
