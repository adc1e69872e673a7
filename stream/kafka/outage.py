"""When Kafka did not answer, and whether a wait for it should go on."""

import logging
import math
import time
from collections.abc import Callable

from confluent_kafka import KafkaError

logger = logging.getLogger(__name__)

_SAY_EVERY_S = 10.0
_PAUSE_S = 0.1


class Outage:
    """Shared by everything that asks Kafka."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.stopping: Callable[[], bool] = lambda: False
        """Whether the worker is to stop, and to wait no longer."""
        self.waited_at = self._said_at = -math.inf
        """When Kafka last failed to answer."""

    def note(self) -> None:
        """Kafka fails to answer now."""
        self.waited_at = self.clock()

    def wait(self, call: str, reason: KafkaError) -> None:
        """Say now and then that a call waits for Kafka, and give Kafka a moment."""
        self.note()
        if self.waited_at - self._said_at > _SAY_EVERY_S:
            self._said_at = self.waited_at
            logger.warning("waiting for Kafka call=%s reason=%s", call, reason)
        time.sleep(_PAUSE_S)
