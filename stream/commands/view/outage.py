"""Kafka is away: the view goes on answering, and says so once. Kafka is back: that too is said once.

aiokafka and Faust log several lines a second as long as Kafka is away. They are dropped; the view asks Kafka itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.settings import Settings

logger = logging.getLogger(__name__)

LOOKS_EVERY_S: Final = 5.0
_ANSWERS_WITHIN_S: Final = 4.0
_ABOUT_THE_CONNECTION: Final = ("aiokafka", "faust", "mode")


def quiet_libraries() -> None:
    """Let the libraries log only what ends the view: everything else that they say is about the connection."""
    for name in _ABOUT_THE_CONNECTION:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def kafka_answers(settings: Settings) -> Callable[[], Awaitable[bool]]:
    """A question that takes at most a few seconds, and no time of the event loop."""
    # Without librdkafka's own log, which would say again and again what is said once here.
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, **settings.kafka, "log_level": 0})

    def answers() -> bool:
        try:
            admin.list_topics(settings.recommendations_topic, timeout=_ANSWERS_WITHIN_S)
        except KafkaException:
            return False
        return True

    return lambda: asyncio.to_thread(answers)


async def watch(answers: Callable[[], Awaitable[bool]], every_s: float = LOOKS_EVERY_S) -> None:
    """Log when Kafka goes away and when it comes back, for as long as this runs."""
    away_since: float | None = None
    clock = asyncio.get_running_loop().time
    while True:
        here = await answers()
        if not here and away_since is None:
            away_since = clock()
            logger.warning("waiting for Kafka: it does not answer; the lists that are here are served meanwhile")
        elif here and away_since is not None:
            logger.info("Kafka answers again after_s=%.0f", clock() - away_since)
            away_since = None
        await asyncio.sleep(every_s)
