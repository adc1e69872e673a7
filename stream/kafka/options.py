"""The worker's librdkafka options, and the memory budget that bounds all its queues (measured: docs/kafka.md)."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_STEP_RECORDS: Final = 20_000

CONSUMER: Final[Mapping[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    # `resume` chooses the first offset. librdkafka must never silently replace an offset that the topic does not have.
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
"""How long the group waits for a named worker: long enough to restart and load a model on a busy machine."""
PRODUCER: Final[Mapping[str, Any]] = {
    "transaction.timeout.ms": 15_000,
    # A step's records leave in few large batches. The commit flushes at once, so light load does not wait for this.
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
    # The reader joins no group. The client wants this below `max.poll.interval.ms` all the same.
    "session.timeout.ms": 6000,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 20,
    "queued.min.messages": 50_000,
    "queued.max.messages.kbytes": 32_768,
}
RESERVED: Final = frozenset(
    {
        "bootstrap.servers",
        "client.id",  # it says which worker a member of the group is
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
"""Options that exactly-once needs, or that another setting holds: not allowed in `REC2PM_KAFKA_*`."""


class _OfOtherClients(logging.Filter):
    """`REC2PM_KAFKA_*` goes to every client, and each warns about options that it does not use. Drop these warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "will be ignored by this" not in record.getMessage()


def logger_of(client: str) -> logging.Logger:
    """The logger for a client's log lines."""
    logger = logging.getLogger(f"rdkafka.{client}")
    if not logger.filters:
        logger.addFilter(_OfOtherClients())
    return logger


def logger_of_command() -> logging.Logger:
    """The logger for the clients of a command, silent unless the command is verbose: the error that a call raises says
    the same as the log, in one line.
    """
    if logging.getLogger("rdkafka").isEnabledFor(logging.DEBUG):
        return logger_of("command")
    silent = logging.Logger("rdkafka.command")  # librdkafka logs some refusals as fatal, whatever its level
    silent.addHandler(logging.NullHandler())
    return silent


_RESTORES_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """One amount of memory, divided: RocksDB's block cache and write buffers, and librdkafka's queues. All in bytes."""

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
    # A queue that is nearly full accepts one more fetch.
    return {"queued.max.messages.kbytes": limit // 2 >> 10, "fetch.max.bytes": max(limit // 2, 1 << 20)}


def fitting(options: Mapping[str, Any]) -> dict[str, Any]:
    """A consumer's options with a fetch limit that holds the largest message: librdkafka refuses a smaller one."""
    fetch = max(int(options["fetch.max.bytes"]), int(options.get("message.max.bytes", 0)))
    answer = max(int(options.get("receive.message.max.bytes", 0)), fetch + 512)
    return {**options, "fetch.max.bytes": fetch, "receive.message.max.bytes": answer}
