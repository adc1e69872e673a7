"""What librdkafka knows by itself every few seconds: whether Kafka still sends anything, and where partitions end.

A worker with nothing to do makes no call that would fail while Kafka is away. But its client fetches and sends
heartbeats many times a second, so a Kafka that is there never stays silent. The client hands its statistics over within
`consume`; nothing here waits.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from stream.kafka.outage import Outage

logger = logging.getLogger(__name__)

EVERY_MS: Final = 5000
_SILENT_AFTER_US: Final = 5_000_000
"""Heartbeats go out every half second, and fetches are answered within a tenth."""
_UNKNOWN: Final = -1


class _Broker(msgspec.Struct):
    state: str
    rxidle: int = _UNKNOWN
    """Since something was received from it, µs; -1: never."""


class _Partition(msgspec.Struct):
    ls_offset: int = _UNKNOWN
    """The last stable offset: the end, for a reader of committed records."""


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition] = {}


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker] = {}
    topics: dict[str, _Topic] = {}


_decode: Final = msgspec.json.Decoder(_Statistics).decode


class Statistics:
    """The newest statistics of the consumer in the group."""

    def __init__(self, topic: str, outage: Outage) -> None:
        """Args:
        topic: the interactions topic.
        outage: notes that Kafka is silent.
        """
        self._topic: Final = topic
        self._outage: Final = outage
        self.ends: Mapping[int, int] = {}
        """Partition → the end of what can be read of it; without those that the client does not fetch."""

    def options(self) -> dict[str, Any]:
        """What makes a consumer hand its statistics over."""
        return {"statistics.interval.ms": EVERY_MS, "stats_cb": self}

    def __call__(self, text: str) -> None:
        """Take statistics from the client."""
        try:
            found = _decode(text)
        except msgspec.DecodeError as error:
            logger.debug("statistics unreadable reason=%s", error)
            return
        if not any(broker.state == "UP" and 0 <= broker.rxidle < _SILENT_AFTER_US for broker in found.brokers.values()):
            self._outage.note()
        topic = found.topics.get(self._topic, _Topic())
        self.ends = {
            int(number): each.ls_offset for number, each in topic.partitions.items() if each.ls_offset != _UNKNOWN
        }
