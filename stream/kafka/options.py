"""librdkafka's options: the worker's, with what each is for, and how one memory budget bounds all queues (docs/kafka.md
has the measurements).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_STEP_RECORDS: Final = 20_000

CONSUMER: Final[Mapping[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    # Where a group begins is said in `resume`; an offset that the topic does not have is never replaced by another one
    # in silence.
    "auto.offset.reset": "error",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 6000,
    "heartbeat.interval.ms": 500,
    "max.poll.interval.ms": 120_000,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "queued.min.messages": 100_000,
}
NAMED_SESSION_MS: Final = 30_000
"""How long the group waits for a named worker to come back: a restart with the loading of a model, on a machine that is
busy.
"""
PRODUCER: Final[Mapping[str, Any]] = {
    "transaction.timeout.ms": 15_000,
    # A step's records leave in few large batches; committing flushes at once, so it is no wait at light load.
    "linger.ms": 20,
    "retry.backoff.ms": 5,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 500_000,
}
CHANGELOG_READER: Final[Mapping[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 20,
    "queued.min.messages": 50_000,
    "queued.max.messages.kbytes": 32_768,
}
RESERVED: Final = frozenset(
    {
        "bootstrap.servers",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "transactional.id",
        "isolation.level",
        "enable.auto.commit",
        "enable.partition.eof",
        "partitioner",
        "auto.offset.reset",
        "partition.assignment.strategy",
    }
)
"""What the guarantee rests on, or another setting says: not for `REC2PM_KAFKA_*`."""


class _OfOtherClients(logging.Filter):
    """`REC2PM_KAFKA_*` goes to every client, and each says of an option for the others that it does not use it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "will be ignored by this" not in record.getMessage()


def logger_of(client: str) -> logging.Logger:
    """Where a client's log lines go."""
    logger = logging.getLogger(f"rdkafka.{client}")
    if not logger.filters:
        logger.addFilter(_OfOtherClients())
    return logger


_RESTORES_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """One amount of memory, cut up: RocksDB's block cache and write buffers, and librdkafka's queues. All in bytes."""

    total: int

    @property
    def stores(self) -> int:
        return self.total // 2

    def consumer(self) -> dict[str, Any]:
        return _fetching(self.total // 4)

    def changelog_reader(self) -> dict[str, Any]:
        return _fetching(self.total // 8 // _RESTORES_AT_ONCE)

    def producer(self) -> dict[str, Any]:
        return {"queue.buffering.max.kbytes": self.total // 8 >> 10}


def _fetching(limit: int) -> dict[str, Any]:
    # A queue takes in one fetch more when it is nearly full.
    return {"queued.max.messages.kbytes": limit // 2 >> 10, "fetch.max.bytes": max(limit // 2, 1 << 20)}


def fitting(options: Mapping[str, Any]) -> dict[str, Any]:
    """A consumer's options, with fetches that hold the largest message there may be: librdkafka refuses to start with
    others.
    """
    fetch = max(int(options["fetch.max.bytes"]), int(options.get("message.max.bytes", 0)))
    answer = max(int(options.get("receive.message.max.bytes", 0)), fetch + 512)
    return {**options, "fetch.max.bytes": fetch, "receive.message.max.bytes": answer}
